"""A dense folder with other values in some of its tensors: what an adapter, or training, made of them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Anatomy
from whet.apply.job import model_name
from whet.checkpoint import (
    MANIFEST,
    Checkpoint,
    Factors,
    atomic,
    attach,
    check_shape,
    copy_beside,
    hashed_files,
    load_model,
    size_on_disk,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.engines.torch import outputs
from whet.errors import GateError, UsageError
from whet.messages import Message, to_json
from whet.steps.lineage import next_manifest
from whet.steps.original import open_original
from whet.steps.proof import PROVED
from whet.targets import find_target

_INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class Merged:
    """What changes: `factors` by the model's name of the module, or all that `model` holds. lost, added: squares of
    what rounding to the stored type took, and of what was added, summed up on the way."""

    factors: Mapping[str, Factors] = field(default_factory=dict)
    model: Any = None
    squares: dict[str, float] = field(default_factory=lambda: {"lost": 0.0, "added": 0.0})

    @classmethod
    def of_model(cls, model: Any) -> Merged:
        """All values of a model that was trained."""
        return cls(model=model)

    def change(self, parts: Anatomy) -> Callable[[str, Tensor], Tensor]:
        """What makes of a stored tensor, by its name, the one that is to be stored."""
        wanted = {f"{name}.weight": one for name, one in self.factors.items()}
        turned = {linear.held.parameter for linear in parts.linears() if linear.transposed}
        moved = {linear.parameter: linear.held for linear in parts.linears() if linear.address in parts.moved()}
        held = {} if self.model is None else self.model.state_dict()

        def changed(name: str, value: Tensor) -> Tensor:
            own = parts.name(name)
            if self.model is not None:
                view = moved.get(name)
                if view is None and own not in held:
                    return value  # what the architecture has no place for
                exact = (held[own] if view is None else view.of(held[view.parameter])).detach().float().cpu()
            elif own in wanted:
                rows = value.t() if own in turned else value
                exact = wanted[own].weight(rows)
                exact = exact.t() if own in turned else exact
            else:
                return value
            stored = exact.to(value.dtype).contiguous()
            self.squares["lost"] += (stored.float() - exact).square().sum().item()
            self.squares["added"] += (exact - value.float()).square().sum().item()
            return stored

        return changed

    def difference(self) -> float:
        """What rounding to the stored type took, over what was added: 0 where nothing was lost."""
        added = self.squares["added"]
        return math.sqrt(self.squares["lost"] / added) if added else 0.0


def write_merged(
    out: Path,
    checkpoint: Checkpoint,
    merged: Merged,
    files: Mapping[str, str],
    *,
    record: Mapping[str, Any],
    digest: str | None,
    card: str,
    notes: list[Message],
    verify: Mapping[str, float],
    adapter: Mapping[str, Factors] | None = None,
    dynamic: Mapping[str, Any] | None = None,
    prove: Callable[[], Mapping[str, Any]] = dict,
) -> dict[str, Any]:
    """Write the whole folder, and prove it where the model is small. May be repeated.

    files: those that are copied, with their SHA-256. record: of the lineage. adapter: what base and adapter give beside
    each other, to be compared with. dynamic: what whet.json says under that name. prove: what
    else is checked of the written tensors. Returns `sizes`, `difference` (`Merged.difference`) and `check`.
    """
    parts = open_original(checkpoint.path, find_target("transformers")).parts
    _check(checkpoint, parts, merged.factors)
    change = merged.change(parts)
    for file in sorted({info.file for info in checkpoint.stored.values()}):
        names = [name for name, info in checkpoint.stored.items() if info.file == file]
        write_tensors(out / file.name, {name: change(name, checkpoint.read(name)) for name in names})
    for file in sorted(checkpoint.path.iterdir()):
        if file.name == "config.json" or file.name.endswith(_INDEX):
            with atomic(out / file.name) as temporary:
                shutil.copyfile(file, temporary)
    copy_beside(checkpoint.path, out, files)
    check = _proved(out, checkpoint, merged, adapter) | dict(prove())
    if difference := merged.difference():
        dtype = str(checkpoint.dtype).removeprefix("torch.")
        notes.append(
            Message(
                "rounding to {dtype}, which the weights are stored in, took {share:.2%} of what was added to them",
                dtype=dtype,
                share=difference,
            )
        )
    write_bytes(out / "README.md", card.encode())
    before = checkpoint.whet or {}
    if before.get("masks") and (merged.factors or merged.model is not None):
        notes.append(Message("the model had masks, and what was added to it fills their zeros"))
    manifest = next_manifest(
        checkpoint,
        {**record, "difference": difference} if dynamic is None else record,
        name=model_name(checkpoint.path.resolve()),
        sha256=digest,
        container="dense",
        target="transformers",
        transforms=before.get("transforms"),
        dynamic=None if dynamic is None else dict(dynamic),
        copied=list(parts.unnamed),
        dropped=parts.dropped,
        verify=dict(verify),
        notes=to_json(list(notes)),
        files=hashed_files(out),
    )
    write_json(out / MANIFEST, manifest.document())
    return {
        "sizes": {"original": size_on_disk(checkpoint.path), "lighter": size_on_disk(out)},
        "difference": difference,
        "check": check,
    }


def _check(checkpoint: Checkpoint, parts: Anatomy, factors: Mapping[str, Factors]) -> None:
    """Raises UsageError for a module that the model does not have or that more than it reads."""
    shapes = {parts.name(name): info.shape for name, info in checkpoint.stored.items()}
    for name, one in factors.items():
        if name == parts.family.head and parts.tied:
            raise UsageError(
                "{folder}: the adapter is for {name}, which is the embedding too: merged, it would change what the "
                "model reads. Untie the two first, or use the adapter beside the model.",
                folder=checkpoint.path,
                name=name,
            )
        check_shape(name, one, shapes.get(f"{name}.weight"))


@torch.no_grad()
def _proved(out: Path, checkpoint: Checkpoint, merged: Merged, adapter: Mapping[str, Factors] | None) -> dict[str, Any]:
    """How far the written folder is from what it was made of, in logits; raises GateError where that is not finite."""
    if checkpoint.nbytes > PROVED:
        return {"loaded": "not run: the model is too large to load beside this run"}
    tokens = torch.arange(32)[None] % 256
    written = outputs(load_model(out, torch.float32), tokens)
    if not torch.isfinite(written).all():
        raise GateError("{out}: the merged model computes values that are not finite.", out=out)
    before = adapter or merged.factors
    if not before:
        return {"loaded": "finite"}
    base = load_model(checkpoint.path, torch.float32)
    attach(base, before, "cpu")
    return {"logits": (outputs(base, tokens) - written).abs().max().item()}


def total_size(folder: Path, names: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Set right what indices of a folder say of the bytes of all tensors."""
    for name in names:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
        value["metadata"] = {**(value.get("metadata") or {}), "total_size": sum(sizes.values())}
        write_json(folder / name, value)
