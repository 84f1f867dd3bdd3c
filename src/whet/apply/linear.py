"""One linear rounded by itself, or several that read the same input in one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.anatomy import Linear
from whet.apply.job import Job
from whet.grids import Grid
from whet.quantize import Solution, asymmetric_target, second_moment_error
from whet.walk import SecondMoments

Weight = Callable[[Linear], Tensor]


@dataclass(frozen=True)
class Part:
    """A linear that was rounded.

    w: its original weights `[out, in]`. aim: what was to be rounded instead of them (the same, but for asymmetric
    calibration). h: the second moment of its inputs, if there is one. starved: for an expert the share of the tokens it
    saw, if that is too few. factors: where it is repaired, its rows of B `[out, r]` and A `[r, in]`, as stored.
    """

    linear: Linear
    w: Tensor
    aim: Tensor
    h: Tensor | None
    grid: Grid
    solution: Solution
    starved: float | None
    factors: tuple[Tensor, Tensor] | None = None

    @property
    def added(self) -> Tensor:
        """What its repair adds, `[out, in]`, float32; one 0 where there is none."""
        return self.w.new_zeros(()) if self.factors is None else self.factors[0].float() @ self.factors[1].float()

    def error(self, rounded: Tensor) -> float:
        """The share of the linear's output that `rounded` loses; without a second moment that of its weights."""
        if self.h is not None:
            return second_moment_error(self.w, rounded, self.h)
        size = self.w.square().sum().item()
        return (self.w - rounded).square().sum().item() / size if size else 0.0


def by_input(job: Job, linears: list[Linear], weight: Weight, moments: SecondMoments | None) -> Iterator[list[Part]]:
    """For each input of a block, the linears that read it, rounded; those that share a grid are solved in one."""
    inputs: dict[str, dict[tuple[Grid, str], list[Linear]]] = {}
    for linear in linears:
        inputs.setdefault(linear.reads, {}).setdefault(kind(job, linear), []).append(linear)
    for reads, kinds in inputs.items():
        h, drift = (None, None) if moments is None else moments.take(reads)
        share = None if moments is None else moments.starved.get(reads)
        parts: list[Part] = []
        for (grid, _), together in kinds.items():
            own = [weight(linear) for linear in together]
            aims = own
            if h is not None and drift is not None:
                whole = asymmetric_target(torch.cat(own), h, drift)
                aims = list(whole.split([len(w) for w in own]))
            grid, solutions = in_one(job, aims, h, grid)
            parts += [
                Part(linear, w, aim, h, grid, solution, share)
                for linear, w, aim, solution in zip(together, own, aims, solutions, strict=True)
            ]
        yield parts


def kind(job: Job, linear: Linear) -> tuple[Grid, str]:
    """What linears that read one input must have in common to be solved together: the grid, and where blocks of its
    rows count, the tensor."""
    grid = job.grids[linear.address]
    if grid.rows in (0, 1):
        return grid, ""
    return grid, next(piece.address for piece in job.pieces if linear in piece.linears)


def in_one(job: Job, weights: list[Tensor], h: Tensor | None, grid: Grid) -> tuple[Grid, list[Solution]]:
    """Weights of one input, rounded together; and the grid with the type of its scales."""
    w = torch.cat(weights) if len(weights) > 1 else weights[0]
    grid = with_safe_scales(job, w, grid)
    solution = job.effort.solve(w, h, grid)
    ends = list(itertools.accumulate(map(len, weights)))
    return grid, [solution.rows(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def with_safe_scales(job: Job, w: Tensor, grid: Grid) -> Grid:
    """`grid` with scales in float32 where the model is in float32 and float16 would lose them."""
    return grid.safe(w) if job.dtype == torch.float32 else grid
