"""Levels that are entries of a table times a scale: IQ4_NL, ggml's sixteen values that are denser near zero.

A group of 32 weights has a float16 scale, which may be negative. The same values on two levels are IQ4_XS (`nested`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from whet.grids.integer import IntegerGrid, Params, signed_starts
from whet.grids.levels import Levels, inverse

IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@dataclass(frozen=True)
class TableLevels(Levels):
    """Levels anywhere: `values`, ascending, times the scale; `middles` lie between each two."""

    values: Tensor = field(default_factory=lambda: torch.empty(0))
    middles: Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def of(cls, values: Sequence[int], scale: Tensor) -> TableLevels:
        """The entries of a table under `scale`, float32."""
        steps = inverse(scale)
        table = torch.tensor(values, dtype=torch.float32, device=scale.device)
        return cls(steps, steps, scale, steps, len(values) - 1, values=table, middles=(table[1:] + table[:-1]) / 2)

    def __getitem__(self, index: int) -> TableLevels:
        """The levels of one of several parameter sets stacked along the first dimension."""
        return replace(self, inverse=self.inverse[index], scale=self.scale[index])

    def codes(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Nearest codes of `x`, as floats."""
        found = torch.bucketize((x * self.inverse).contiguous(), self.middles)
        return found.to(torch.float32) if out is None else out.copy_(found)

    def value(self, codes: Tensor) -> Tensor:
        """What `codes` stand for."""
        return self.values[codes.long()] * self.scale

    def along(self, codes: Tensor) -> Tensor:
        """What the scale multiplies, in the place of `codes`."""
        return codes.copy_(self.values[codes.long()])


@dataclass(frozen=True)
class TableGrid(IntegerGrid):
    """Where a linear's weights may land: a symmetric grid whose codes stand for entries of a table, `values`."""

    values: tuple[int, ...] = IQ4

    def bind(self, params: Params) -> Levels:
        """The grid's levels under `params`, float32."""
        return TableLevels.of(self.values, params["scale"].float())

    def dequantize(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of `codes`, in the type the target computes in."""
        return torch.tensor(self.values, dtype=dtype, device=codes.device)[codes.long()] * params["scale"].to(dtype)

    def zero_value(self, params: Params) -> Tensor | None:
        """None: no entry of the table is 0."""
        return None

    def _starts(self, x: Tensor) -> Params:
        return {"scale": signed_starts(x, self.bits, self.values[0], self.values[-1])}
