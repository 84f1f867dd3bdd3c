"""Rotations that are learned: those of SpinQuant (Liu et al. 2024, arXiv 2405.16406), by what GPTQ will lose.

SpinQuant learns the rotation R1 of the residual stream and one R2 of each block's heads by descent along the Cayley
transform, on the loss of the whole model rounded to nearest. Here the loss is a sum over linears, in second moments of
their inputs, so that no block is run: with H = M D Mᵀ, M unit upper triangular, GPTQ loses Σ_c D_cc e_c² of the
errors e it makes column by column, each about a twelfth of its step squared, so about

    Σ_groups (Σ_rows range²) (Σ_{c in group} D_cc).

The product of all D_cc is det H, which no rotation changes: what can be won is that columns which cost much lie in
groups whose weights are small. Bits divide out, as a linear counts by the share of what it loses at the start. (With
the loss of rounding to nearest instead, the KL of a model of a million parameters at 3 bits was 0.97 of that without
any rotation; with this one 0.77. Two draws, three seeds.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids import Grid
from whet.train import descend

# Steps of descent, each on one block. How far the first step turns, in radians a channel; the last turns by nothing.
LEARNING_STEPS = 750
_ANGLE, _MOMENTUM = 0.03, 0.9
_DAMP = 0.01  # of the mean of H's diagonal, as in GPTQ


@dataclass(frozen=True)
class Turned:
    """A linear between rotations.

    w: `[out, in]`, float64. h: second moment `[in, in]` of its inputs, or, where these are not turned, what an error
    costs in each column `[in]` (`pivots`). rows, columns: names of the rotations of its outputs and inputs, which
    stand on the diagonal as often as fits; None where they stay.
    """

    w: Tensor
    h: Tensor
    grid: Grid
    rows: str | None
    columns: str | None

    def loss(self, rotations: Mapping[str, Tensor]) -> Tensor:
        """What GPTQ will lose, but for a factor that depends on nothing but the bits."""
        w, cost = self.w, self.h
        if self.columns is not None:
            basis = rotations[self.columns]
            w = turned(w, basis)
            cost = pivots(turned(turned(self.h, basis).t(), basis))
        if self.rows is not None:
            w = turned(w.t(), rotations[self.rows]).t()
        total = w.new_zeros(())
        for start, end in self.grid.groups(w.shape[1]):
            group = w[:, start:end]
            if self.grid.zero == "none":
                spread = 2 * group.abs().amax(1)
            else:
                spread = group.amax(1).clamp_min(0) - group.amin(1).clamp_max(0)
            total = total + spread.square().sum() * cost[start:end].sum()
        return total


def turned(w: Tensor, basis: Tensor) -> Tensor:
    """`w [n, in]` with the columns in another orthogonal `basis`, which stands on the diagonal as often as fits."""
    return (w.reshape(len(w), -1, len(basis)) @ basis).reshape(w.shape)


def pivots(h: Tensor) -> Tensor:
    """D `[in]` of `h [in, in]`, which is damped until it has one: the variance of each input given those after it."""
    damp = _DAMP * h.diagonal().mean().clamp_min(torch.finfo(h.dtype).tiny)
    while True:
        lower, failed = torch.linalg.cholesky_ex((h + damp * torch.eye(len(h)).to(h)).flip(0, 1))
        if not failed:
            return lower.diagonal().flip(0).square()
        damp = damp * 10


def spinquant(
    block: Callable[[int], Sequence[Turned]],
    count: int,
    start: Mapping[str, Tensor],
    seed: int,
    steps: int = LEARNING_STEPS,
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Rotations by name, learned from where they `start`, float64.

    block: the linears of one of `count` blocks. seed: of the order in which blocks are taken. on_step: called after
    each of the `steps`.
    """
    found, speed = dict(start), {name: torch.zeros_like(basis) for name, basis in start.items()}
    with torch.no_grad():
        before = [[one.loss(start) for one in block(index)] for index in range(count)]

    def order() -> Iterator[int]:
        left: list[int] = []
        for number in range(steps):
            left = left or random.Random(f"{seed} {number}").sample(range(count), count)
            yield left.pop()

    def step(number: int, index: int) -> None:
        with torch.enable_grad():
            parts = block(index)
            names = sorted({name for one in parts for name in (one.rows, one.columns) if name is not None})
            free = {name: found[name].detach().requires_grad_() for name in names}
            lost = [one.loss(free) / first for one, first in zip(parts, before[index], strict=True) if first > 0]
            slopes = torch.autograd.grad(torch.stack(lost).sum(), list(free.values())) if lost else ()
        for name, slope in zip(names, slopes, strict=False):
            found[name], speed[name] = _step(found[name], slope, speed[name], _ANGLE * (1 - number / steps))
        on_step()

    descend(order(), step)
    return found


def _step(basis: Tensor, slope: Tensor, speed: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """A step of `angle` radians a channel along the Cayley transform, with momentum: basis and speed after it."""
    along = basis.t() @ slope
    speed = _MOMENTUM * speed + (along - along.t()) / 2
    size = speed.norm()
    if not size > 0:
        return basis, speed
    half = speed * (angle * len(basis) ** 0.5 / size / 2)
    eye = torch.eye(len(basis)).to(basis)
    return basis @ torch.linalg.solve(eye + half, eye - half), speed
