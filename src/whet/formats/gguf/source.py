"""What a folder holds, original or lighter, as the rows of ggml's types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import family_of, per_layer
from whet.checkpoint import Checkpoint, model_config
from whet.checkpoint.codes_whet import codes_of, unpack
from whet.checkpoint.modeling_whet import decode, parts_of
from whet.checkpoint.table import check_stored
from whet.errors import UsageError
from whet.formats.gguf.blocks import FLOAT_TYPES, block_type, blocks, float_rows
from whet.messages import Message, listed


@dataclass(frozen=True)
class Stored:
    """A tensor of the folder: ggml's `type` for it as it is, its `shape`, and whether it is made of codes.

    linear: it is one of the linears that whet stored by themselves, `[out, in]` whatever the family does.
    """

    type: str
    shape: tuple[int, ...]
    coded: bool
    linear: bool = False


@dataclass(frozen=True)
class TextModel:
    """What a file holds of a folder: the text model's `config`, and what it calls a stored tensor by itself (`own`),
    None for one of a tower around it. larger: the config of the model around it, if it is inside one. left_out: what
    that config says of logits and transformers does not do, by entry. layers: by block the entries of its own."""

    config: Any
    own: Callable[[str], str | None]
    larger: Any | None = None
    left_out: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)


def text_model(checkpoint: Checkpoint) -> TextModel:
    """The text model of `checkpoint`, which is all of it unless it is inside a larger one."""
    config, family = model_config(checkpoint), family_of(checkpoint.config, checkpoint.tensors)
    if family is None or not family.entries:
        return TextModel(config, lambda stored: stored, layers=per_layer(checkpoint.config))
    inner = config.get_text_config()
    inner.tie_word_embeddings = family.ties
    said = {entry: getattr(inner, entry) for entry in family.left_out}
    for entry, neutral in family.left_out.items():
        setattr(inner, entry, neutral)
    return TextModel(inner, lambda stored: family.own_name(family.module_name(stored)), config, said)


class Source:
    """The tensors of a folder by the names they have in the original.

    linears: how the quantized ones are read, by address (`whet.json`); none for an original. Raises UsageError that
    names every scheme no ggml type holds, and what to do.
    """

    def __init__(self, checkpoint: Checkpoint, linears: Mapping[str, Mapping[str, Any]]) -> None:
        self.checkpoint, self.linears = checkpoint, linears
        self.tensors: dict[str, Stored] = {}
        self._views: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {}
        self._last: tuple[str, Tensor] | None = None
        lost: dict[str, list[str]] = {}
        check_stored(checkpoint, linears)
        for name, info in checkpoint.tensors.items():
            address, _, part = name.rpartition(".")
            entry = dict(linears.get(address, {}))
            if part in parts_of(entry):
                kind = block_type(entry)
                if kind is None:
                    lost.setdefault(entry.get("grid") or Message("its scheme"), []).append(address)
                elif part == "weight_packed":
                    shape = tuple(checkpoint.read(f"{address}.weight_shape").tolist())
                    self.tensors[f"{address}.weight"] = Stored(kind, shape, coded=True, linear=True)
                continue
            if info.dtype not in FLOAT_TYPES:
                continue  # masks and counters that old versions stored
            self.tensors[name] = Stored(FLOAT_TYPES[info.dtype], info.shape, coded=False, linear=address in linears)
        if lost:
            told = [
                Message("{scheme} ({count} linears, first {name})", scheme=scheme, count=len(set(a)), name=a[0])
                for scheme, a in lost.items()
            ]
            raise UsageError(
                "{source}: no type of ggml that whet writes holds {lost}, and rounding again would change the weights "
                "that were judged. Compress with --for llama.cpp, which takes ggml's own types.",
                source=checkpoint.path,
                lost=listed(told, "; "),
            )

    def view(self, name: str, of: str, change: Callable[[Tensor], Tensor]) -> str:
        """Make what `change` makes of the tensor `of`, not a coded one, a tensor called `name`, which is returned."""
        stored = self.tensors[of]
        shape = tuple(change(torch.empty(stored.shape, device="meta")).shape)
        self.tensors[name] = Stored(stored.type, shape, coded=False)
        self._views[name] = of, change
        return name

    def read(self, name: str) -> Tensor:
        """A tensor that is not coded, in its stored type."""
        if name not in self._views:
            return self.checkpoint.read(name)
        of, change = self._views[name]
        if self._last is None or self._last[0] != of:  # experts of a stack are asked for one after the other
            self._last = of, self.checkpoint.read(of)
        return change(self._last[1])

    def values(self, name: str) -> Tensor:
        """One tensor as float32, by the one definition of its weights."""
        if not self.tensors[name].coded:
            return self.read(name).float()
        address = name.removesuffix(".weight")
        entry = {**self.linears[address], "decode": "float32"}
        parts = {part: self.checkpoint.read(f"{address}.{part}") for part in parts_of(entry)}
        return decode(parts, entry, torch.float32)

    def rows(self, name: str, kind: str) -> Tensor:
        """One tensor as bytes of `kind`, uint8 `[..., bytes of a row]`; a coded one has its own kind only."""
        stored = self.tensors[name]
        if not stored.coded:
            return float_rows(self.read(name).contiguous(), kind, name)
        address = name.removesuffix(".weight")
        entry = self.linears[address]
        codes = codes_of(self.checkpoint.read(f"{address}.weight_packed"), dict(entry), stored.shape[1])
        params = {"scale": self.checkpoint.read(f"{address}.weight_scale")}
        if entry["zero"] == "real":
            params["offset"] = self.checkpoint.read(f"{address}.weight_offset")
        if "part" in entry:
            streams = self.checkpoint.read(f"{address}.weight_parts").t().contiguous()
            numbers = unpack(streams, entry["part_bits"], stored.shape[0]).t()
            names = ["part_scale", "part_offset"] if entry["zero"] == "real" else ["part_scale"]
            params |= zip(names, numbers.split(stored.shape[1] // entry["part"], dim=1), strict=True)
        return blocks(codes, params, kind, address)
