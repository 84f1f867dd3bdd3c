"""What transforms work on: linears that read one input, seen in other coordinates of it, and what rounding them loses.

With `w [out, in]` on inputs x of second moment H, `w T` on T⁻¹x computes the same. Rounding is not the same: the loss
of w T + D is tr(D H' Dᵀ) with H' = T⁻¹ H T⁻ᵀ, which is tr((D T⁻¹) H (D T⁻¹)ᵀ), the loss in the original coordinates.
So every candidate is judged by one number, without running a block (AWQ itself replays one for each candidate).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids import Grid
from whet.quantize.nearest import nearest
from whet.quantize.solution import Solution

Solve = Callable[[Tensor, Tensor, Grid], Solution]
Settle = Callable[[Tensor], Tensor]

# What a factor may be of the middle one: beyond that a float16 model's weights would leave their type.
_FARTHEST = 2.0**10


@dataclass(frozen=True)
class Reader:
    """Linears that read one input, as rows of `w [out, in]`, all on one `grid`.

    h: second moment `[in, in]` of the input. largest: its largest absolute value in each channel `[in]`. judge: second
    moment on text that solves nothing, which tells the loss instead of `h`. share: of the tokens, how many reach it.
    """

    w: Tensor
    h: Tensor
    grid: Grid
    largest: Tensor
    judge: Tensor | None = None
    share: float = 1.0

    def scaled(self, factors: Tensor) -> Reader:
        """Columns times `factors [in]`, inputs divided by them."""
        factors = factors.to(self.w)
        both = factors[:, None] * factors
        judge = None if self.judge is None else self.judge / both
        return dataclasses.replace(
            self, w=self.w * factors, h=self.h / both, judge=judge, largest=self.largest / factors
        )

    def rotated(self, basis: Tensor) -> Reader:
        """Columns and inputs in an orthogonal `basis [in, in]`."""
        judge = None if self.judge is None else basis.t() @ self.judge @ basis
        return dataclasses.replace(self, w=self.w @ basis, h=basis.t() @ self.h @ basis, judge=judge)

    def sampled(self, rows: int) -> Reader:
        """At most so many rows, evenly spaced; all of them where several share a scale."""
        step = 1 if self.grid.rows != 1 else -(-len(self.w) // rows)
        return dataclasses.replace(self, w=self.w[::step], share=self.share * step)

    def loss(self, solve: Solve = nearest) -> float:
        """tr(D H Dᵀ) of the error D that rounding leaves, times the reader's share."""
        solution = solve(self.w, self.h, self.grid)
        error = self.grid.decode(solution.codes, solution.params) - self.w
        metric = self.h if self.judge is None else self.judge
        return self.share * ((error @ metric) * error).sum().item()


@dataclass(frozen=True)
class Found:
    """Factors `[in]`, and the share that rounding to nearest loses with them of what it loses without, where known."""

    factors: Tensor
    share: float | None = None


def loss(readers: Sequence[Reader], factors: Tensor | None = None, solve: Solve = nearest) -> float:
    """What rounding `readers` loses together, with their columns times `factors`."""
    return sum((one if factors is None else one.scaled(factors)).loss(solve) for one in readers)


def balanced(factors: Tensor) -> Tensor:
    """`factors [in]` around 1, the largest as far above as the smallest below, none beyond 2^±10."""
    usable = torch.isfinite(factors) & (factors > 0)
    if not usable.any():
        return torch.ones_like(factors)
    middle = (factors[usable].max().log() + factors[usable].min().log()).div(2).exp()
    found = torch.where(usable, factors / middle, 1.0)
    return found.clamp(1 / _FARTHEST, _FARTHEST)
