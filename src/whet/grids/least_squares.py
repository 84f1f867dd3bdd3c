"""The closed forms behind fitting and refitting: what codes are worth under any scale and offset."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids.levels import Levels


@dataclass(frozen=True)
class Quadratic:
    """What a loss gains by a step along one direction (a scale's) and a lift along another (an offset's), elementwise.

    slope, curve: half the first and second derivatives along the first; flat_slope, flat: along the second; cross: the
    mixed one. Where there is no second direction its figures are zeros.
    """

    slope: Tensor
    curve: Tensor
    flat_slope: Tensor
    flat: Tensor
    cross: Tensor

    @classmethod
    def of_one(cls, slope: Tensor, curve: Tensor) -> Quadratic:
        """Without a second direction."""
        nothing = torch.zeros_like(slope)
        return cls(slope, curve, nothing, nothing, nothing)

    @classmethod
    def of_moments(cls, along: Tensor, flat: Tensor | None, gradient: Tensor, h: Tensor) -> Quadratic:
        """Of codes `[columns, out]` on a second moment: their scale multiplies `along`, their offset `flat`.

        flat: `[columns, out]` or `[columns, 1]`. gradient: `[columns, out]`, the product of `h [columns, columns]` with
        what rounding leaves.
        """
        carried = h @ along
        slope, curve = (along * gradient).sum(0), (along * carried).sum(0)
        if flat is None:
            return cls.of_one(slope, curve)
        return cls(slope, curve, (flat * gradient).sum(0), (flat * (h @ flat)).sum(0), (flat * carried).sum(0))

    def step(self) -> Tensor:
        """The best step, a lift being free to follow."""
        determinant = self.curve * self.flat - self.cross * self.cross
        solvable = determinant > 1e-6 * self.curve * self.flat
        both = (self.slope * self.flat - self.flat_slope * self.cross) / torch.where(solvable, determinant, 1.0)
        return torch.where(solvable, both, self.step_at(torch.zeros_like(both)))

    def step_at(self, lift: Tensor) -> Tensor:
        """The best step beside `lift`."""
        return _ratio(self.slope - lift * self.cross, self.curve)

    def lift(self, step: Tensor) -> Tensor:
        """The best lift beside `step`."""
        return _ratio(self.flat_slope - step * self.cross, self.flat)

    def gain(self, step: Tensor, lift: Tensor) -> Tensor:
        """By how much both lower the loss."""
        along = step * (2 * self.slope - step * self.curve - 2 * lift * self.cross)
        return along + lift * (2 * self.flat_slope - lift * self.flat)

    def gather(self, index: Tensor) -> Quadratic:
        """Those at `index [sets, n]` of several stacked along the first dimension."""
        count = len(self.slope)
        return Quadratic(*(v.expand(count, -1).gather(0, index) for v in vars(self).values()))


def sums(levels: Levels, x: Tensor, weight: Tensor) -> Quadratic:
    """What nearest codes of `x [group, n]` under each of several parameter sets are worth, `[sets, n]`, from nothing.

    weight: importance, `[group]` or `[group, n]`. Steps are then scales, lifts offsets, and gains weighted squares.
    """
    codes, product = torch.empty_like(x), torch.empty_like(x)
    slope, curve, cross = (torch.empty_like(levels.scale) for _ in range(3))
    for i in range(len(slope)):
        along = levels[i].along(levels[i].codes(x, out=codes))
        if levels.real:
            cross[i] = weighted(along, weight)
        slope[i] = weighted(torch.mul(along, x, out=product), weight)
        curve[i] = weighted(torch.mul(along, along, out=product), weight)
    if not levels.real:
        return Quadratic.of_one(slope, curve)
    return Quadratic(slope, curve, weighted(x, weight).expand_as(slope), weight.sum(0).expand_as(slope), cross)


def errors(levels: Levels, x: Tensor, weight: Tensor) -> Tensor:
    """Weighted squares `[sets, n]` of what nearest rounding under each of several parameter sets does to `x`."""
    found = torch.empty_like(levels.scale)
    for i in range(len(found)):
        difference = levels[i].value(levels[i].codes(x)).sub_(x)
        found[i] = weighted(difference.square_(), weight)
    return found


def usable(weight: Tensor) -> Tensor:
    """Importances of columns as shares of their sum, and all alike where that is 0 (dead inputs); only ratios matter.

    weight: `[group]` or `[group, n]`.
    """
    weight = weight.clamp_min(0)
    total = weight.sum(0)
    return torch.where(total > 0, weight / total.clamp_min(torch.finfo(torch.float32).tiny), 1.0 / len(weight))


def weighted(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of the columns of `x [group, n]`, `[n]`; `weight` is `[group]` or `[group, n]`."""
    return torch.mv(x.t(), weight) if weight.dim() == 1 else (x * weight).sum(0)


def pooled(x: Tensor, rows: int) -> Tensor:
    """Sums of `x [..., out]` over every `rows` rows, 0 for all of them: for each row what its like have together."""
    if rows == 1:
        return x
    size = rows or x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % size))
    return padded.unflatten(-1, (-1, size)).sum(-1).repeat_interleave(size, -1)[..., : x.shape[-1]]


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)
