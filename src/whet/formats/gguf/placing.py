"""Where the tensors of a folder go in a file: by name, in which type, and which rows of what."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet.errors import UsageError
from whet.formats.gguf.architectures import Architecture, expert_of, rows_of, tensor_name
from whet.formats.gguf.blocks import row_bytes
from whet.formats.gguf.source import Source, Stored, TextModel

# Read in float32 by llama.cpp whatever the file says, or too small to be worth less: routers, learned positions, short
# convolutions.
_PLAIN = (
    *("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "position_embd.weight", "exp_probs_b.bias"),
    *("shortconv.conv.weight", "ssm_conv1d.weight"),
)
_IGNORED = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
_BLOCK = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Placed:
    """A tensor of the file: its name, type and shape, and what it is made of.

    sources: names in the folder, one above the other (experts along a first dimension, if `stacked`). order: which of
    the rows, None for all as they are. add: what is added to every number. transposed: stored `[in, out]`. value:
    computed.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    sources: tuple[str, ...] = ()
    order: Tensor | None = None
    add: float = 0.0
    transposed: bool = False
    value: Tensor | None = None
    stacked: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        return math.prod(self.shape[:-1]) * row_bytes(self.type, self.shape[-1])


def place(source: Source, row: Architecture, text: TextModel, kind: str | None) -> list[Placed]:
    """Every tensor of the text model in the order of the folder; refuses one that has no place."""
    config = text.config
    find = tensor_name(row, config.num_hidden_layers)
    experts: dict[str, dict[int, str]] = {}
    orders: dict[str, Tensor | None] = {}
    placed: list[Placed] = []
    for name, stored in list(source.tensors.items()):
        own = None if name.endswith(_IGNORED) else text.own(name)
        if own is None or is_ahead(own, config.num_hidden_layers):
            continue
        for stack, number, one, rows in _experts(own, name, stored, row, source, config.hidden_size):
            if stack not in experts:
                placed.append(Placed(stack, "", ()))
                orders[stack] = rows
            experts.setdefault(stack, {})[number] = one
            own = None
        if own is None:
            continue
        placed += _placed(source, row, config, name, find(own), own, kind)
    if _is_copy(placed, source, config):
        placed = [one for one in placed if one.name != "output.weight"]
    elif row.always_tied and any(one.name == "output.weight" for one in placed):
        raise UsageError(
            "{folder}: its head differs from the embedding, and llama.cpp reads the embedding instead in the "
            "architecture {name}. It cannot be written as a .gguf.",
            folder=source.checkpoint.path,
            name=row.name,
        )
    return [
        _stack(one, experts[one.name], orders[one.name], source, kind) if one.name in experts else one for one in placed
    ]


def is_ahead(own: str, blocks: int) -> bool:
    """Whether a tensor is of what says a token more than the next one, which the model itself does not have."""
    match = _BLOCK.match(own)
    return own.startswith("mtp.") or (match is not None and int(match[1]) >= blocks)


def order_of(row: Architecture, config: Any, target: str, rows: int) -> Tensor | None:
    """Where the rows of a tensor of the file are in the folder's; None where they stay."""
    return None if row.order is None else row.order(config, target.split(".")[-2], rows)


def _placed(
    source: Source, row: Architecture, config: Any, name: str, target: str | None, own: str, kind: str | None
) -> list[Placed]:
    """What becomes of a tensor that is none of the experts'."""
    if target is None:
        raise UsageError(
            "{folder}: tensor {tensor} has no place in the architecture {name} of llama.cpp. It cannot be written "
            "as a .gguf.",
            folder=source.checkpoint.path,
            tensor=name,
            name=row.name,
        )
    if row.computed is not None and (changed := row.computed(own)) is not None:
        name = source.view(f"{name} as in llama.cpp", name, changed)
    stored = source.tensors[name]
    shape, turned = stored.shape, False
    if row.transposed and not stored.linear and len(shape) == 2 and target.startswith("blk."):
        shape, turned = shape[::-1], True
    wanted = stored.type if stored.coded or len(shape) > 1 else "F32"
    if not stored.coded and len(shape) > 1:
        wanted = "F32" if target.endswith(_PLAIN) else kind or stored.type
    adds = 1.0 if row.shifted and target.endswith("norm.weight") and not target.endswith(row.unshifted) else 0.0
    parts: Mapping[str, Tensor | None] | None = None
    if row.split is not None:
        parts = row.split(config, target, shape[0])
    if parts is None:
        parts = {target: order_of(row, config, target, shape[0])}
    return [
        Placed(one, wanted, shape if rows is None else (len(rows), *shape[1:]), (name,), rows, adds, turned)
        for one, rows in parts.items()
    ]


def _experts(
    own: str, name: str, stored: Stored, row: Architecture, source: Source, width: int
) -> list[tuple[str, int, str, Tensor | None]]:
    """The experts in a tensor: the stack that each belongs to, its number, its name in `source`, and its rows there."""
    found = expert_of(own, row)
    if found is None:
        return []
    numbers = range(stored.shape[0]) if found.number is None else [found.number]
    placed = []
    for number in numbers:
        one, shape = name, stored.shape
        if found.number is None:
            turned = len(stored.shape) == 3 and (row.turned_experts or _is_turned(found.parts, stored.shape, width))

            def view(value: Tensor, number: int = number, turned: bool = turned) -> Tensor:
                return value[number].t() if turned else value[number]

            one = source.view(f"{name} of expert {number}", name, view)
            shape = source.tensors[one].shape
        for part, rows in found.parts:
            stack = f"blk.{found.block}.ffn_{part}_exps.{found.suffix}"
            placed.append((stack, number, one, rows_of(rows, shape[0])))
    return placed


def _is_turned(parts: Sequence[tuple[str, str]], shape: tuple[int, ...], width: int) -> bool:
    """Whether experts are stored `[in, out]`, by the width of hidden states; where that does not tell, they are not."""
    return shape[1] != width if parts[0][0] == "down" else shape[2] != width


def _is_copy(placed: Sequence[Placed], source: Source, config: Any) -> bool:
    """Whether a stored head is the tied embedding once more; where it has other values transformers keeps both."""
    names = {one.name: one.sources[0] for one in placed if one.name in ("output.weight", "token_embd.weight")}
    if not config.tie_word_embeddings or len(names) < 2:
        return False
    if any(source.tensors[name].coded for name in names.values()):
        return True
    return torch.equal(*(source.checkpoint.read(name) for name in names.values()))


def _stack(one: Placed, experts: Mapping[int, str], order: Tensor | None, source: Source, kind: str | None) -> Placed:
    names = tuple(experts[i] for i in sorted(experts))
    stored = [source.tensors[name] for name in names]
    shape = stored[0].shape if order is None else (len(order), *stored[0].shape[1:])
    types = {s.type if s.coded else kind or s.type for s in stored} if len(shape) > 1 else {"F32"}
    if len(types) > 1:
        raise UsageError(
            "{tensor}: its experts have several types ({types}), and the file holds them as one tensor of one type. "
            "Give all experts of a block the same scheme.",
            tensor=one.name,
            types=", ".join(sorted(types)),
        )
    return Placed(one.name, types.pop(), (len(names), *shape), names, order, stacked=True)
