"""The model that a step works on, opened and checked: whether what is stored is what config.json tells of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whet.anatomy import FAMILIES, Anatomy, Family, anatomy, family_of, own_code, per_layer
from whet.anatomy import turned as turned_in
from whet.checkpoint import (
    Checkpoint,
    about_left_out,
    empty_model,
    inside,
    model_config,
    read_card,
    refuse_scaled,
    refuse_unfinished,
)
from whet.errors import UsageError
from whet.formats.gguf import plan_gguf
from whet.formats.graphs.write import plan_graph
from whet.messages import Message, first_of
from whet.steps.material import Material
from whet.targets import Storage, Target, check_family
from whet.walk.look import look

_FEW = 0.02  # of the weights in blocks: routers, convolutions and the like
_TIED = "tie_word_embeddings"


@dataclass(frozen=True)
class Original:
    """The original as it is worked on. `untied`: its config ties tensors that differ; `parted`, `card`: as in `Job`.
    `unfound`: why its parts were not found, where no table has them."""

    checkpoint: Checkpoint
    parts: Anatomy
    dtype: torch.dtype
    untied: bool
    parted: bool
    card: Mapping[str, Any]
    unfound: Message | None = None


def open_original(
    model: str | Path | Checkpoint, target: Target, dequantize: bool = False, *, turned: bool = False
) -> Original:
    """The original, for a target that has its family. dequantize: one that is stored in few bits is taken as what it
    decodes to. turned: its residual stream will be, for which the head has to be a tensor of its own."""
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint(model)
    refuse_scaled(checkpoint.path, checkpoint.stored_in, dequantize)
    refuse_unfinished(checkpoint.path)
    about = checkpoint.path / "README.md"
    card = read_card(about) if inside(checkpoint.path, about) else {}
    untied = _untie(checkpoint)
    parted = turned and _part(checkpoint)
    parts, unfound = anatomy(checkpoint.config, checkpoint.shapes, str(checkpoint.path)), None
    if not parts.family.known:
        if names := turned_in(empty_model(checkpoint, torch.float32), checkpoint.shapes):
            checkpoint.turn(names)
            parts = anatomy(checkpoint.config, checkpoint.shapes, str(checkpoint.path))
        found = look(checkpoint, parts)
        if isinstance(found, Family):
            parts = anatomy(checkpoint.config, checkpoint.shapes, str(checkpoint.path), found)
        else:
            unfound = found
    check_family(target, parts.model_type, str(checkpoint.path))
    if target.graph:
        plan_graph(checkpoint.path, target)  # as below
    if target.gguf:
        plan_gguf(checkpoint.path)  # a config or tokenizer that cannot be written is found now, not after hours
    _check_shapes(checkpoint, parts)
    dtype = model_config(checkpoint).dtype or checkpoint.dtype
    return Original(checkpoint, parts, dtype, untied, parted, card, unfound)


def about_original(opened: Original, window: int, material: Material) -> list[Message]:
    """Notes on what is unusual of the model. window: tokens in a window of text, as asked for."""
    parts, notes = opened.parts, []
    if (kind := opened.checkpoint.stored_in) is not None:
        notes.append(
            Message(
                "the original is stored in {kind}: what its weights decode to was taken for it, in {dtype}; what it "
                "lost before is not in any figure",
                kind=kind,
                dtype=str(opened.dtype).removeprefix("torch."),
            )
        )
    if opened.untied:
        notes.append(
            Message(
                "{head}.weight differs from the embedding although config.json ties the two: both are kept, as "
                "transformers does, and the lighter config says that they are not tied",
                head=parts.family.head,
            )
        )
    if material.about is not None and material.about.get("window", window) < window:
        notes.append(
            Message(
                "windows of {have} tokens instead of {asked}: the model's config allows no longer ones",
                have=material.about["window"],
                asked=window,
            )
        )
    if parts.unnamed:
        notes.append(_copied(opened))
    if parts.dropped:
        notes.append(
            Message("{name} left out: it is a copy of the embedding, to which config.json ties it", name=parts.dropped)
        )
    return notes + _about_left(opened) + about_left_out(opened.checkpoint.path)


def _about_left(opened: Original) -> list[Message]:
    """A note on matrices in the blocks of a family without a row that are no linears of those, where they are many."""
    parts, tensors = opened.parts, opened.checkpoint.tensors
    if parts.family.counted:
        return []
    mine = {linear.parameter for linear in parts.linears()}
    every = [name for names in parts.block_tensors for name in names if len(tensors[name].shape) > 1]
    sizes = {name: math.prod(tensors[name].shape) for name in every}
    left = [name for name in every if name not in mine]
    share = sum(sizes[name] for name in left) / max(1, sum(sizes.values()))
    if share < _FEW:
        return []
    names = dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in sorted(left, key=lambda name: -sizes[name]))
    return [
        Message(
            "{share:.0%} of the weights in the blocks stay as they are, as whet does not know what reads them: {names}",
            share=share,
            names=first_of(list(names)),
        )
    ]


def _copied(opened: Original) -> Message:
    """A note on the tensors that no table names. Of a larger model the parts around its text model are named."""
    parts = opened.parts
    if not parts.family.leads:
        return Message("copied unchanged, as no table names them: {names}", names=first_of(parts.unnamed, 6))
    beside = [name for name in parts.unnamed if parts.family.own_name(parts.name(name)) is None]
    modules = sorted({".".join(parts.name(name).split(".")[:2]) for name in beside})
    return Message(
        "a text model inside a larger one is compressed; what is around it is copied unchanged: {count} tensors of "
        "{size:.3g} MB ({names})",
        count=len(beside),
        size=sum(opened.checkpoint.tensors[name].nbytes for name in beside) / 1e6,
        names=first_of(modules, 6),
    )


def _untie(checkpoint: Checkpoint) -> bool:
    """Whether config.json, or the family where it says nothing, ties a stored head to an embedding of other values; its
    entry is then set right in memory.

    transformers keeps both tensors in that case, whatever the config says.
    """
    family = family_of(checkpoint.config, checkpoint.tensors)
    if family is None or not (family.entries or checkpoint.config).get(_TIED, family.ties):
        return False
    wanted = {f"{family.head}.weight", f"{family.embedding}.weight"}
    names = [name for name in checkpoint.tensors if family.module_name(name) in wanted]
    if len(names) != 2:
        return False
    same = torch.equal(*(checkpoint.read(name) for name in names))
    if not same:
        checkpoint.config[_TIED] = False
        if isinstance(text := checkpoint.config.get("text_config"), dict):
            checkpoint.config["text_config"] = {**text, _TIED: False}
    return not same


def _part(checkpoint: Checkpoint) -> bool:
    """Whether config.json ties the head to the embedding; in memory it is then a tensor of its own, with equal values.

    For transforms that change the two differently.
    """
    family = FAMILIES.get(str(checkpoint.config.get("model_type", "")))
    if family is None or not family.writes or not checkpoint.config.get(_TIED, family.ties):
        return False
    stored = {family.module_name(name): name for name in checkpoint.tensors}
    head, embedding = f"{family.head}.weight", f"{family.embedding}.weight"
    if embedding not in stored:
        return False  # which `anatomy` refuses by name
    if head not in stored:
        checkpoint.repeat(head, stored[embedding])
    checkpoint.config[_TIED] = False
    return True


def _check_shapes(checkpoint: Checkpoint, parts: Anatomy) -> None:
    """The stored shapes must be those the config's architecture has, tensor by tensor."""
    model = empty_model(checkpoint, torch.float32)
    if not parts.family.known:
        # files may hold other tensors than the model, which transformers makes its own of; those it has must fit
        for name, parameter in model.named_parameters():
            stored = checkpoint.tensors.get(name)
            if stored is not None and stored.shape != tuple(parameter.shape):
                raise _misshapen(checkpoint, name, parameter.shape)
        return
    stored_as = {parts.name(stored): stored for stored in checkpoint.tensors}
    own = {n: p for n, p in model.named_parameters() if parts.family.own_name(n) is not None}
    expected = {stored_as.get(n, n): tuple(p.shape) for n, p in own.items()}
    expected = _unstacked(checkpoint, parts, expected)
    for name, shape in expected.items():
        stored = checkpoint.tensors.get(name)
        if stored is None:
            if parts.head is None and name == f"{parts.family.head}.weight":
                continue
            raise UsageError(
                "{folder}: tensor {name} is missing, which config.json asks for. The folder is incomplete or its "
                "config is another model's; download it again.",
                folder=checkpoint.path,
                name=name,
            )
        if stored.shape != shape:
            raise _misshapen(checkpoint, name, shape)
        if not stored.dtype.is_floating_point:
            raise UsageError(
                "{folder}: tensor {name} is {dtype}, and weights are floats. Give the original (unquantized) "
                "checkpoint.",
                folder=checkpoint.path,
                name=name,
                dtype=str(stored.dtype).removeprefix("torch."),
            )
    buffers = [stored_as.get(name, name) for name, _ in model.named_buffers()]
    known = {*parts.unnamed, *expected, *buffers, f"{parts.family.head}.weight"}
    extra = [n for names in parts.block_tensors for n in names if n not in known]
    if extra:
        raise UsageError(
            "{folder}: {count} tensors in blocks that config.json's architecture does not have (first {name}). "
            "Weights and config are of different models; download the folder again.",
            folder=checkpoint.path,
            count=len(extra),
            name=extra[0],
        )


def _misshapen(checkpoint: Checkpoint, name: str, asked: Sequence[int]) -> UsageError:
    return UsageError(
        "{folder}: tensor {name} has shape {shape}, config.json asks for {asked}. Weights and config are of different "
        "models; download the folder again.",
        folder=checkpoint.path,
        name=name,
        shape=list(checkpoint.tensors[name].shape),
        asked=list(asked),
    )


def _unstacked(
    checkpoint: Checkpoint, parts: Anatomy, expected: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """`expected` with the stacks of experts taken apart as files have them; refuses other numbers than the config's."""
    elsewhere = parts.moved()
    moved = [linear for linear in parts.linears() if linear.address in elsewhere]
    sizes: dict[str, int] = {}
    for linear in moved:
        sizes[linear.held.parameter] = sizes.get(linear.held.parameter, 0) + linear.shape[0] * linear.shape[1]
    for linear in moved:
        shape = expected.get(linear.held.parameter)
        if shape is None or sizes[linear.held.parameter] != math.prod(shape) or shape[-1] != linear.shape[1]:
            raise UsageError(
                "{folder}: the experts stored as {name} and so on do not make up {stack} {shape}, which config.json "
                "asks for. Weights and config are of different models; download the folder again.",
                folder=checkpoint.path,
                name=linear.parameter,
                stack=linear.held.parameter,
                shape=list(shape or ()),
            )
    left = {name: shape for name, shape in expected.items() if name not in sizes}
    return left | {linear.parameter: linear.shape for linear in moved}


def check_code(checkpoint: Checkpoint, stored: Storage, target: Target, folder: bool) -> None:
    """Raises UsageError where a model that Python code of its own builds, or that of blocks that differ, would need
    whet's modelling file. folder: whether one is left beside a runtime's file."""
    if own_code(checkpoint.config) and not stored.stock and not stored.dense:
        raise UsageError(
            "{folder} is built by Python code of its own, beside which whet's modelling file cannot stand, and without "
            "that transformers does not load it: {why}. Give a scheme that it loads, such as W4A16, and leave out "
            "--for.",
            folder=checkpoint.path,
            why=stored.reason or Message("--for {target} asks for it", target=target.name),
        )
    own = stored.container == "whet" and (folder or not stored.finished)
    if per_layer(checkpoint.config) and own:
        raise UsageError(
            "{folder} has blocks that differ in shape (--shapes free), and a modelling file for them, beside which "
            "whet's own cannot stand: {why}. Give a scheme that transformers loads, such as W4A16, and leave out "
            "--for, or give --for llama.cpp, onnx or openvino without --folder.",
            folder=checkpoint.path,
            why=stored.reason or Message("--for {target} asks for it", target=target.name),
        )
