"""One linear rounded by itself, or several that read the same input in one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.anatomy import Linear
from whet.apply.job import Job
from whet.grids import Grid
from whet.quantize import ROUGH, Solution, asymmetric_target, reconstruct, second_moment_error
from whet.walk import SecondMoments

Weight = Callable[[Linear], Tensor]


@dataclass(frozen=True)
class Part:
    """A linear that was rounded.

    w: its original weights `[out, in]`. aim: what was to be rounded instead of them (the same, but for asymmetric
    calibration). h: the second moment of its inputs, if there is one. starved: for an expert the share of the tokens it
    saw, if that is too few. mask: bool `[out, in]`, False where it is exactly 0; None where nothing has to be. factors:
    where it is repaired, its rows of B `[out, r]` and A `[r, in]`, as stored.
    """

    linear: Linear
    w: Tensor
    aim: Tensor
    h: Tensor | None
    grid: Grid
    solution: Solution
    starved: float | None
    mask: Tensor | None = None
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
            masks = masks_of(job, together, own, h)
            grid, solutions = in_one(job, aims, h, grid, masks)
            parts += [
                Part(linear, w, aim, h, grid, solution, share, mask)
                for linear, w, aim, solution, mask in zip(together, own, aims, solutions, masks, strict=True)
            ]
        yield parts


def kind(job: Job, linear: Linear) -> tuple[Grid, str]:
    """What linears that read one input must have in common to be solved together: the grid, and where blocks of its
    rows count, the tensor."""
    grid = job.grids[linear.address]
    if grid.rows in (0, 1):
        return grid, ""
    return grid, next(piece.address for piece in job.pieces if linear in piece.linears)


def masks_of(job: Job, linears: list[Linear], weights: list[Tensor], h: Tensor | None) -> Sequence[Tensor | None]:
    """The mask of each linear of one input, None where nothing has to be 0."""
    found = None
    if job.sparsity is not None:
        update = functools.partial(reconstruct, steps=ROUGH) if job.effort.text else None
        found = job.sparsity.masks([linear.address for linear in linears], weights, h, update)
    return found or [None] * len(linears)


def in_one(
    job: Job, weights: Sequence[Tensor], h: Tensor | None, grid: Grid, masks: Sequence[Tensor | None]
) -> tuple[Grid, list[Solution]]:
    """Weights of one input, rounded together under their masks; and the grid with the type of its scales."""
    w = torch.cat(list(weights)) if len(weights) > 1 else weights[0]
    grid = with_safe_scales(job, w, grid)
    own = [mask for mask in masks if mask is not None]  # of all linears or of none
    solution = job.effort.solve(w, h, grid, torch.cat(own) if own else None)
    ends = list(itertools.accumulate(map(len, weights)))
    return grid, [solution.rows(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def with_safe_scales(job: Job, w: Tensor, grid: Grid) -> Grid:
    """`grid` with scales in float32 where the model is in float32 and float16 would lose them."""
    return grid.safe(w) if job.dtype == torch.float32 else grid
