"""Grids of keys and values whose scales a folder holds, as `compress --kv` calibrates them.

The arithmetic and the names are compressed-tensors' own (`kv_cache_scheme`, and beside each attention `k_scale` and
`v_scale`), which vLLM reads: one scale a layer for keys and one for values, or one for each head of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from whet.errors import UsageError, did_you_mean

CACHE_PARTS = ("k_scale", "v_scale")  # what the stored tensors of an attention are called


@dataclass(frozen=True)
class CacheGrid:
    """Where keys and values may land: 8 bits of `values`, `int` or `e4m3`, under a scale a `tensor` or a `head`."""

    name: str
    values: Literal["int", "e4m3"]
    per: Literal["tensor", "head"]

    @property
    def top(self) -> float:
        """The largest value of the grid, in scales."""
        return 127.5 if self.values == "int" else 448.0

    @property
    def compressed(self) -> dict[str, Any]:
        """The `kv_cache_scheme` of compressed-tensors."""
        kind = "int" if self.values == "int" else "float"
        strategy = "attn_head" if self.per == "head" else "tensor"
        return {"num_bits": 8, "type": kind, "symmetric": True, "strategy": strategy, "dynamic": False}

    def shape(self, heads: int) -> tuple[int, ...]:
        """The shape of a stored scale."""
        return (heads, 1, 1) if self.per == "head" else (1,)

    def scale_of(self, largest: Tensor, dtype: torch.dtype) -> Tensor:
        """Stored scales with which values up to `largest` (`[heads]` or `[1]`) are held."""
        scale = (largest.float() / self.top).to(dtype)
        scale = torch.where(scale == 0, torch.full_like(scale, torch.finfo(dtype).eps), scale)
        return scale.reshape(self.shape(len(largest)))

    def encode(self, x: Tensor, scale: Tensor) -> Tensor:
        """Codes of `x [b, heads, n, width]`, a byte each."""
        scaled = x / scale
        if self.values == "int":
            return scaled.clamp(-128, 127).round().to(torch.int8)
        return scaled.clamp(-448, 448).to(torch.float8_e4m3fn)

    def decode(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """What codes stand for, in `dtype`."""
        return (codes.to(scale.dtype) * scale).to(dtype)

    def rounded(self, x: Tensor, scale: Tensor) -> Tensor:
        """`x [b, heads, n, width]` as it is read back."""
        return self.decode(self.encode(x, scale), scale, x.dtype)


CACHE_GRIDS = {
    grid.name: grid
    for grid in (
        CacheGrid("fp8", "e4m3", "tensor"),
        CacheGrid("fp8-head", "e4m3", "head"),
        CacheGrid("int8-tensor", "int", "tensor"),
        CacheGrid("int8-head", "int", "head"),
    )
}


def find_cache_grid(name: str) -> CacheGrid:
    """The grid of `name`. Raises UsageError with a did-you-mean, or for types whose scales are found while a model
    runs."""
    said = name.strip().lower()
    if said in ("int8", "int4", "q4_0"):
        raise UsageError(
            "{name} finds its scales while the model runs, so there are none to store: give it then (whet generate "
            "--kv {name}). Stored are those of {known}.",
            name=said,
            known=", ".join(CACHE_GRIDS),
        )
    if said not in CACHE_GRIDS:
        raise UsageError(
            "Cache type {name!r} is not known.{near} Types: {known}.",
            name=name,
            near=did_you_mean(said, CACHE_GRIDS),
            known=", ".join(CACHE_GRIDS),
        )
    return CACHE_GRIDS[said]
