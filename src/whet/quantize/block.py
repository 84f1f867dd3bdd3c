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

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids import CodedGrid, Params, Relaxed
from whet.quantize.solution import Solution, masked_codes

# Steps at most, and times at most that each batch is seen. Where there is little text a block learns it by heart: of
# a model of a million parameters, 3 bits trained on 8,192 tokens, KL on other text was 0.0348 after 25 times and 0.0376
# after 50, and on the same text it still fell.
_STEPS, _EPOCHS = 200, 25
STEP_TOKENS = 2048
_SCALES = 0.2  # rate of scales over that of places
# Losses are shares of the first; the gradient of one weight of many millions is still far above this epsilon.
_BETAS, _EPSILON = (0.9, 0.95), 1e-16
_LOOKS = 5  # times that other batches tell on the way how good it is
JUDGES = 16  # batches at most that tell it where there are no others
PIECE = 32  # tokens that tell it together: what is won on them is one observation

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
        """`w [out, in]` with zeros where the mask has none of it."""
        return w if self.mask is None else torch.where(self.mask, w, 0.0)

    def made(self, codes: Tensor, params: Params) -> Solution:
        """What it has become, with `codes [out, in]` and parameters of what `relaxed` it."""
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


def usual_steps(tokens: int, most: int = _STEPS) -> int:
    """Steps that something is trained for on so many tokens, at `most`."""
    return min(most, _EPOCHS * -(-tokens // STEP_TOKENS))


def steps_of(sizes: Sequence[int], steps: int, seed: int) -> Iterator[list[int]]:
    """The numbers of the batches of each step, of `sizes` tokens: shuffled anew each time all were seen, and as many
    together as make up STEP_TOKENS."""
    order, left = torch.Generator().manual_seed(seed), list[int]()
    for _ in range(steps):
        taken: list[int] = []
        while not taken or (left and sum(sizes[i] for i in (*taken, left[-1])) <= STEP_TOKENS):
            left = left or torch.randperm(len(sizes), generator=order).tolist()
            taken.append(left.pop())
        yield taken


def adam(rates: Sequence[tuple[Sequence[Tensor], float]]) -> torch.optim.Adam:
    """What trains some tensors, each at a rate of its own at first."""
    groups = [{"params": list(some), "lr": first, "first": first} for some, first in rates]
    return torch.optim.Adam(groups, betas=_BETAS, eps=_EPSILON)


def take_step(optimizer: torch.optim.Adam, done: float) -> None:
    """A step by the gradients as they are, at rates that fall to nothing along a line; `done`: share of the steps."""
    for group in optimizer.param_groups:
        group["lr"] = group["first"] * (1 - done)
    optimizer.step()


def noise(gains: Tensor) -> float:
    """The standard error of the mean of what is gained on each piece of text (`[n]`); 0 where there is one piece."""
    return gains.std().item() / math.sqrt(len(gains)) if len(gains) > 1 else 0.0


def surely(gains: Tensor) -> bool:
    """Whether what was gained on pieces of text (`[n]`) is above nothing by more than its standard error."""
    return gains.mean().item() > noise(gains)


def in_pieces(x: Tensor) -> Tensor:
    """Sums of `x [..., L]`, a number a token, over pieces of every row, float64 `[n]`."""
    return torch.cat([piece.double().sum(-1).reshape(-1) for piece in x.split(PIECE, -1)])


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
    looks = {round(step * steps / _LOOKS) for step in range(1, _LOOKS + 1)} if judges else {steps}
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

    with torch.no_grad():
        energy = sum(size(target(batch)).double().sum().item() for batch in judges)
    first = found = judged()
    before = least = first.sum().item()
    start = best = {address: x.rounded() for address, x in linears.items()}
    places = [x.place for x in linears.values()]
    factors = [factor for x in linears.values() for factor in x.factors.values()]
    rates = [(places, rate), (factors, _SCALES * rate)]
    optimizer = adam(rates)
    for step, taken in enumerate(steps_of(sizes, steps if before else 0, seed), 1):
        optimizer.zero_grad()
        with torch.enable_grad():
            rounded = weights()
            leaves = {address: w.detach().requires_grad_() for address, w in rounded.items()}
            for batch in taken:
                (loss(leaves, batch).sum() / before).backward()
        slopes = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves.values()]
        torch.autograd.backward(list(rounded.values()), slopes)
        take_step(optimizer, (step - 1) / steps)
        for x in linears.values():
            x.stay()
        if step in looks and (now := judged()).sum().item() < least:
            found, least, best = now, now.sum().item(), {address: x.rounded() for address, x in linears.items()}
    if not surely(first - found):
        least, best = before, start
    solutions = {address: start.made(*best[address]) for address, start in starts.items()}
    return Trained(solutions, before / energy if energy else 0.0, least / energy if energy else 0.0)
