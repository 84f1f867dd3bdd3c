"""A quantized folder of whet, read as the weights that its codes stand for: for steps that only look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint.files import Computed, TensorInfo, read_tensor
from whet.checkpoint.folder import Checkpoint
from whet.checkpoint.modeling_whet import decode, parts_of
from whet.checkpoint.scaled import type_in

QUANTIZED = ("quantization_config", "whet")  # entries of config.json that say how weights are stored


@dataclass(frozen=True)
class Stored:
    """What one matrix is stored as: the `entry` of the table, its parts by their names, and its `shape` (out, in)."""

    address: str
    entry: Mapping[str, Any]
    parts: Mapping[str, TensorInfo]

    @property
    def shape(self) -> tuple[int, int]:
        if "weight_shape" in self.parts:
            rows, columns = read_tensor(self.parts["weight_shape"]).tolist()
            return rows, columns
        packed = "weight_packed" in self.parts
        rows, columns = self.parts["weight_packed" if packed else "weight"].shape
        return rows, columns * (2 if packed else 1)


class Decoded(Checkpoint):
    """A quantized folder whose `config` and `tensors` are those of a dense model.

    dtype: that weights are decoded in; None takes the one that config.json names. sources: by name of a tensor what it
    is decoded from, several where they are rows of it, one above the other. Experts are tensors each, whatever the
    model that was quantized had. Nothing is decoded before it is read. reading: how its tensors are read, where it has
    no whet.json yet.
    """

    def __init__(
        self, path: str | Path, dtype: torch.dtype | None = None, reading: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(path)
        self.raw = self.config
        reading = reading or reading_of(self.whet or {})
        self.table: Mapping[str, Mapping[str, Any]] = reading["linears"]
        own = (*QUANTIZED, "auto_map") if "whet" in self.raw else QUANTIZED
        self.config = {key: value for key, value in self.raw.items() if key not in own}
        dtype = dtype or type_in(self.raw)
        called = {model: stored for stored, model in (reading.get("names") or {}).items()}
        tensors, self.sources = dict(self.tensors), dict[str, list[Stored]]()
        for address, entry in self.table.items():
            names = parts_of(dict(entry)) or {"weight"}
            into = entry.get("into") or {}
            whole = into.get("rows") is None or into.get("expert") is not None
            if names == {"weight"} and whole:  # stored as it was
                continue
            name = f"{address}.weight" if whole else called.get(into["parameter"], into["parameter"])
            parts = {part: tensors.pop(f"{address}.{part}") for part in sorted(names)}
            self.sources.setdefault(name, []).append(Stored(address, entry, parts))
        self.tensors = tensors | {name: _computed(found, dtype) for name, found in self.sources.items()}


def reading_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """How a quantized folder's tensors are read: `linears` by address, and `names` where the model has others."""
    found: Mapping[str, Any] = manifest.get("reading") or manifest
    return found


def _computed(found: list[Stored], dtype: torch.dtype) -> Computed:
    found.sort(key=lambda one: ((one.entry.get("into") or {}).get("rows") or [0])[0])
    into = found[0].entry.get("into") or {}
    turned = bool(into.get("transposed")) and into.get("expert") is None
    shape = (sum(one.shape[0] for one in found), found[0].shape[1])
    infos = [info for one in found for info in one.parts.values()]
    value = partial(_value, found, turned, dtype)
    return Computed(
        infos[0].file, dtype, shape[::-1] if turned else shape, infos[0].start, infos[0].end, tuple(infos), value
    )


def _value(found: list[Stored], turned: bool, dtype: torch.dtype, *read: Tensor) -> Tensor:
    """The matrix that the parts of `found`, in their order, stand for."""
    left, rows = list(read), []
    for one in found:
        parts = {name: left.pop(0) for name in one.parts}
        rows.append(decode(parts, dict(one.entry), dtype) if "bits" in one.entry else parts["weight"].to(dtype))
    whole = torch.cat(rows)
    return (whole.t() if turned else whole).contiguous()
