"""Levels that are entries of a table of values times a scale, which may be negative: IQ4_NL, NF4 and SEQ.

The first two have sixteen values, denser near zero, and NF4 has one value more above zero than below:

- IQ4_NL: ggml's values, in groups of 32 with float16 scales. The same on two levels are IQ4_XS (`nested`);
- NF4: NormalFloat, as QLoRA defines it (Dettmers et al. 2023, arXiv 2305.14314, appendix E) and bitsandbytes has it,
  with scales in float16 or bfloat16, which are not quantized once more;
- seq2: four evenly spaced values without zero, the same above and below (ParetoQ's stretched elastic quantization, Liu
  et al. 2025, arXiv 2502.02631), for weights that are trained on 2 bits.

A table is stored, and its scales are searched, as a symmetric integer grid's: all that is different is what codes stand
for. Floats of 8 and 4 bits (`small_floats`) are stored as others have them, and some of their scales are too coarse for
a closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whet.grids.books import Book, BookLevels, book
from whet.grids.grid import Params
from whet.grids.integer import IntegerGrid, signed_starts

IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
SEQ = (-1.5, -0.5, 0.5, 1.5)
# The group of a table whose name says none.
_GROUP = 64
# Where the search for a scale starts if the table is its own mirror image: from the whole range to this part of it.
_LEAST, _STARTS = 0.15, 24


@dataclass(frozen=True)
class TableGrid(IntegerGrid):
    """Where a linear's weights may land: a symmetric grid whose codes stand for entries of a table, `values`.

    table: what a user types for it where it is no block type, followed by a group unless that is 64.
    """

    values: tuple[float, ...] = IQ4
    table: str = field(default="", compare=False)
    uncompressed = "compressed-tensors has neither scales of two levels nor tables of values"

    @property
    def name(self) -> str:
        """The scheme a user would type for it, e.g. `nf4-g32`."""
        return self.block or self.table + (f"-g{self.group}" if self.group != _GROUP else "")

    @property
    def kind(self) -> str:
        """What targets call it."""
        return self.block or self.table

    @property
    def compressed(self) -> None:
        """Compressed-tensors has no tables."""

    def table_entry(self, decode: str) -> dict[str, Any]:
        """How a linear on it is read: in float32, as ggml and bitsandbytes do."""
        return {**super().table_entry("float32"), "values": list(self.values)}

    @property
    def extent(self) -> tuple[float, float]:
        """How many scales the largest weight is, and how many lie between it and the one farthest from it, or zero."""
        largest = max(-self.values[0], self.values[-1])
        return largest, largest

    def book(self, device: torch.device | str = "cpu") -> Book:
        """The values, on `device`."""
        return book(self.values, torch.device(device))

    def bind(self, params: Params) -> BookLevels:
        """The grid's levels under `params`, float32."""
        return BookLevels.of(self.book(params["scale"].device), params["scale"].float())

    def dequantize(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of `codes`, in the type the target computes in."""
        return self.book(codes.device).value(codes, dtype) * params["scale"].to(dtype)

    def zero_value(self, params: Params) -> Tensor | None:
        """The code whose value is exactly 0 (broadcastable like `params`), or None where no entry of the table is 0."""
        zero = self.book(params["scale"].device).zero
        return None if zero < 0 else torch.full_like(params["scale"], zero, dtype=torch.float32)

    def _starts(self, x: Tensor) -> Params:
        if all(low == -high for low, high in zip(self.values, reversed(self.values), strict=True)):
            # Under a scale of the other sign the levels are the same. Starts far below the whole range clip a few large
            # weights, which pays on four levels: with a fiftieth of the weights up to six times as large, groups of 128
            # lose 2 % less than with starts from 0.35 of the range on.
            factors = torch.linspace(0, math.log2(_LEAST), _STARTS, device=x.device).exp2()
            return {"scale": x.abs().amax(0) / self.values[-1] * factors[:, None]}
        return {"scale": signed_starts(x, self.bits, self.values[0], self.values[-1])}
