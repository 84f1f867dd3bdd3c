"""Evenly spaced levels, ready to round many tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def inverse(scale: Tensor) -> Tensor:
    """`1 / scale`, and 0 for scales that are 0 or too small to have one: everything is rounded to one code then."""
    usable = scale.abs() >= torch.finfo(torch.float32).tiny
    return torch.where(usable, 1 / torch.where(usable, scale, 1.0), 0.0)


@dataclass(frozen=True)
class Levels:
    """A grid with its parameters multiplied out, so that rounding is two fused operations and a clamp.

    Only for choosing codes: `value` may differ from the grid's `dequantize` in the last bit of a float32.
    """

    inverse: Tensor
    shift: Tensor
    scale: Tensor
    offset: Tensor
    top: int
    real: bool = False

    def __getitem__(self, index: int) -> Levels:
        """The levels of one of several parameter sets stacked along the first dimension."""
        return Levels(
            self.inverse[index], self.shift[index], self.scale[index], self.offset[index], self.top, self.real
        )

    def codes(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Nearest codes of `x`, as floats."""
        return torch.addcmul(self.shift, x, self.inverse, out=out).round_().clamp_(0, self.top)

    def value(self, codes: Tensor) -> Tensor:
        """What `codes` stand for."""
        return torch.addcmul(self.offset, codes, self.scale)

    def ends(self) -> tuple[Tensor, Tensor]:
        """The least and the largest value."""
        codes = self.scale.new_tensor([0.0, float(self.top)]).view(2, *[1] * self.scale.ndim)
        both = self.value(codes.expand(2, *self.scale.shape))
        return both.amin(0), both.amax(0)

    def gaps(self, codes: Tensor, value: Tensor) -> Tensor:
        """How far the nearer neighbour of the `value` of each of `codes` is; 0 where all values are one."""
        gaps = []
        for step in (-1, 1):
            away = (self.value((codes + step).clamp_(0, self.top)) - value).abs_()
            gaps.append(torch.where(away > 0, away, torch.inf))
        gap = torch.minimum(*gaps)
        return torch.where(gap.isfinite(), gap, 0.0)

    def moved(self, values: Tensor, now: Levels) -> Tensor:
        """What `values` of these levels are once the levels are `now`: as far from zero, or the offset, in scales."""
        base, offset = (self.offset, now.offset) if self.real else (0.0, 0.0)
        return (values - base) * (now.scale * self.inverse) + offset

    def along(self, codes: Tensor) -> Tensor:
        """What the scale multiplies, in the place of `codes`: counted from the grid's zero if it has one."""
        return codes if self.real else codes.sub_(self.shift)
