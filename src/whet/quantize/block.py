"""Block rounding: codes and parameters of all linears of a block trained together on what the block gives.

Linears that were rounded one by one are each close to what they were; the block's output is what matters. Starting from
their solutions, every weight gets a place between the values next to its own, and every scale a factor; both follow the
gradient of what the block's output loses, rounding straight through (Bengio et al. 2013, arXiv 1308.3432), by Adam. As
in AdaRound, BRECQ and SignRound (Nagel et al. 2020, arXiv 2004.10568; Li et al. 2021, arXiv 2102.05426; Cheng et al.
2023, arXiv 2309.05516), inputs are the lighter model's and the target is what the original block gave for its own, so a
block makes up for what the blocks before it lost. What is new here is the start, which is a good solution and not
the nearest one, and where a curvature is given the metric, which is BRECQ's with all directions for its diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids import CodedGrid, Params, Relaxed
from whet.quantize.solution import Solution, masked_codes
from whet.train import JUDGES, Judge, adam, descend, in_pieces, steps_of, take_step, usual_steps

_SCALES = 0.2  # rate of scales over that of places
_LOOKS = 5  # times that other batches tell on the way how good it is

Forward = Callable[[Mapping[str, Tensor], int], Tensor]


@dataclass
class Start:
    """A rounded linear: its `solution` on `grid`, where descent would `pull` each weight from there (`[out, in]`, what
    `pull` in this module gives), and a mask as for other solvers."""

    solution: Solution
    grid: CodedGrid
    pull: Tensor
    mask: Tensor | None = None

    def relaxed(self) -> Relaxed:
        """The linear as gradients reach it, without its mask."""
        return self.grid.relax(self.solution.codes, self.solution.params, self.pull)

    def masked(self, w: Tensor) -> Tensor:
        """`w [out, in]` with 0 where it is masked out."""
        return w if self.mask is None else torch.where(self.mask, w, 0.0)

    def made(self, codes: Tensor, params: Params) -> Solution:
        """The solution with other `codes [out, in]` and parameters, exactly 0 where it is masked out."""
        if self.mask is not None:
            columns = codes.shape[1]
            spans = self.grid.groups(columns)
            spread = self.grid.spread(params, len(spans))
            sized = {k: v.repeat_interleave(spans[0][1], 1)[:, :columns] for k, v in spread.items()}
            codes = masked_codes(codes.float(), sized, self.grid, self.mask).to(torch.uint8)
        return Solution(codes.contiguous(), params, self.solution.notes)


@dataclass
class Trained:
    """New solutions by address, and what judges lose of the block's output before and after, over its own energy."""

    solutions: dict[str, Solution]
    before: float
    after: float


def pull(w: Tensor, rounded: Tensor, h: Tensor) -> Tensor:
    """How far each weight of `rounded [out, in]` would move to lower tr((w − q) h (w − q)ᵀ) the most by itself."""
    diagonal = h.diagonal()
    return (w - rounded) @ h / torch.where(diagonal > 0, diagonal, torch.inf)


def round_block(
    starts: Mapping[str, Start],
    forward: Forward,
    target: Callable[[int], Tensor],
    sizes: Sequence[int],
    metric: Tensor | None = None,
    *,
    judges: Sequence[int] = (),
    steps: int | None = None,
    rate: float = 0.01,
    seed: int = 0,
) -> Trained:
    """Train `starts` (by address) on what their block gives.

    forward(weights, i): the block's output `[b, L, hidden]` for batch i with `weights` (by address, `[out, in]`),
    differentiable. target(i): what it should be. sizes: tokens of the batches that are trained on. metric: `[hidden,
    hidden]`, positive definite, what an error of the output costs; None: the same in every direction. judges: numbers
    of other batches, which tell the best of the iterates; without them some that are trained on do. steps: of Adam;
    `usual_steps` unless given. rate: gaps that a weight moves in a step at first, and five times the share that a scale
    does; both fall to nothing along a line. seed: of the order of batches. The start is one of the iterates, and stays
    where the best is better by less than the standard error of that: of little text one always seems so.
    """
    steps = usual_steps(sum(sizes)) if steps is None else steps
    looks = {round(look * steps / _LOOKS) for look in range(1, _LOOKS + 1)} if judges else {steps}
    judges = judges or range(min(len(sizes), JUDGES))
    root = None if metric is None else torch.linalg.cholesky(metric.double()).float()
    linears = {address: start.relaxed() for address, start in starts.items()}

    def size(error: Tensor) -> Tensor:
        return (error if root is None else error @ root).square().sum(-1)

    def weights() -> dict[str, Tensor]:
        return {address: starts[address].masked(x.weight()) for address, x in linears.items()}

    def loss(now: Mapping[str, Tensor], batch: int) -> Tensor:
        return size(forward(now, batch) - target(batch))

    def judged() -> Tensor:
        with torch.no_grad():
            now = weights()
            return torch.cat([in_pieces(loss(now, batch)) for batch in judges])

    def rounded() -> dict[str, tuple[Tensor, Params]]:
        return {address: x.rounded() for address, x in linears.items()}

    def step(number: int, taken: list[int]) -> None:
        optimizer.zero_grad()
        with torch.enable_grad():
            now = weights()
            leaves = {address: w.detach().requires_grad_() for address, w in now.items()}
            for batch in taken:
                (loss(leaves, batch).sum() / before).backward()
        slopes = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves.values()]
        torch.autograd.backward(list(now.values()), slopes)
        take_step(optimizer, number / steps)
        for x in linears.values():
            x.stay()

    with torch.no_grad():
        energy = sum(size(target(batch)).double().sum().item() for batch in judges)
    judge = Judge(judged, rounded, rounded(), looks)
    before = judge.first.sum().item()
    places = [x.place for x in linears.values()]
    factors = [factor for x in linears.values() for factor in x.factors.values()]
    optimizer = adam([(places, rate), (factors, _SCALES * rate)])
    descend(steps_of(sizes, steps if before else 0, seed), step, judge)
    best, lost = judge.kept()
    solutions = {address: start.made(*best[address]) for address, start in starts.items()}
    return Trained(solutions, before / energy if energy else 0.0, lost.sum().item() / energy if energy else 0.0)
