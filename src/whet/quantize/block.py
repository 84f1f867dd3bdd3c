"""Block rounding: codes and parameters of all linears of a block trained together on what the block gives.

Linears that were rounded one by one are each close to what they were; the block's output is what matters. Starting from
their solutions, every weight gets a place between the values next to its own, and every scale a factor; both follow the
gradient of what the block's output loses, rounding straight through (Bengio et al. 2013, arXiv 1308.3432), by Adam. As
in AdaRound, BRECQ and SignRound (Nagel et al. 2020, arXiv 2004.10568; Li et al. 2021, arXiv 2102.05426; Cheng et al.
2023, arXiv 2309.05516), inputs are the lighter model's and the target is what the original block gave for its own, so a
block makes up for what the blocks before it lost. What is new here is the start, which is a good solution and not
the nearest one, and where a curvature is given the metric, which is BRECQ's with all directions for its diagonal.

The grid is only asked for values and codes, so this goes with every grid: a place is measured in gaps between the value
a weight starts on and the nearer of its neighbours, which for evenly spaced levels are the scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids.grouped import Params
from whet.grids.levels import Levels
from whet.grids.schemes import CodedGrid
from whet.quantize.solution import Solution, masked_codes

# Steps at most, and times at most that each batch is seen. Where there is little text a block learns it by heart: of
# a model of a million parameters, 3 bits trained on 8,192 tokens, KL on other text was 0.0348 after 25 times and 0.0376
# after 50, and on the same text it still fell.
_STEPS, _EPOCHS = 200, 25
STEP_TOKENS = 2048
_SCALES = 0.2  # rate of scales over that of places
# Losses are shares of the first; the gradient of one weight of many millions is still far above this epsilon.
_BETAS, _EPSILON = (0.9, 0.95), 1e-16
# How far from its value a weight starts at most, in gaps: at half a gap rounding would move it.
_NEAR = 0.49
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
    linears = {address: _Relaxed(start) for address, start in starts.items()}

    def size(error: Tensor) -> Tensor:
        return (error if root is None else error @ root).square().sum(-1)

    def weights() -> dict[str, Tensor]:
        return {address: x.weight() for address, x in linears.items()}

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
    start = best = {address: x.state() for address, x in linears.items()}
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
            found, least, best = now, now.sum().item(), {address: x.state() for address, x in linears.items()}
    if not surely(first - found):
        least, best = before, start
    solutions = {address: x.solution(best[address]) for address, x in linears.items()}
    return Trained(solutions, before / energy if energy else 0.0, least / energy if energy else 0.0)


class _Relaxed:
    """A rounded linear whose codes and parameters gradients can reach.

    Everything is `[out, groups, size]`, the last group of a ragged row filled up, parameters `[out, groups, 1]`. A
    weight's place says where it is: `place` gaps from the value it started on. `factors` are what scales and real zeros
    are multiplied by, where a row has them for itself; whole numbers stay, and so does a divisor.
    """

    def __init__(self, start: Start) -> None:
        solution, self.grid, self.mask, self.notes = start.solution, start.grid, start.mask, start.solution.notes
        self.columns = solution.codes.shape[1]
        spans = self.grid.groups(self.columns)
        self.count, self.size = len(spans), spans[0][1] - spans[0][0]
        self.params = solution.params
        self.start = self._bind(self.params)
        codes = self._grouped(solution.codes.float())
        self.value = self.start.value(codes)
        ends = self.start.value(torch.tensor([[0.0], [self.start.top]], device=codes.device)[:, None, None])
        self.low, self.high = ends.amin(0), ends.amax(0)
        self.gap = self._gaps(codes)
        wanted = self._grouped(start.pull) / torch.where(self.gap > 0, self.gap, torch.inf)
        self.place = wanted.clamp_(-_NEAR, _NEAR).requires_grad_()
        # what rows share would have to move with all of them, some of which may be in other linears
        tuned = {k: v for k, v in self.params.items() if k in ("scale", "offset") and self.grid.rows == 1}
        self.factors = {k: torch.ones_like(v, dtype=torch.float32).requires_grad_() for k, v in tuned.items()}
        self.stay()

    def weight(self) -> Tensor:
        """The rounded weights `[out, in]`, float32; gradients reach places and factors as if nothing were rounded."""
        wanted = torch.addcmul(self.value, self.place, self.gap)
        with torch.no_grad():
            away = self.start.value(self.start.codes(wanted)).sub_(wanted)
        now = self._bind(self._scaled(self.factors))
        base, moved = (self.start.offset, now.offset) if self.start.real else (0.0, 0.0)
        grouped = (wanted + away - base) * (now.scale * self.start.inverse) + moved
        w = grouped.flatten(1)[:, : self.columns]
        return w if self.mask is None else torch.where(self.mask, w, 0.0)

    def stay(self) -> None:
        """Keep places within what the codes reach."""
        with torch.no_grad():
            room = _NEAR * self.gap
            wanted = torch.addcmul(self.value, self.place, self.gap)
            wanted = torch.minimum(torch.maximum(wanted, self.low - room), self.high + room)
            self.place.copy_(torch.where(self.gap > 0, (wanted - self.value) / self.gap, 0.0))

    def state(self) -> tuple[Tensor, Params]:
        """Codes `uint8 [out, in]` and parameters as they would be stored now."""
        with torch.no_grad():
            codes = self.start.codes(torch.addcmul(self.value, self.place, self.gap)).flatten(1)[:, : self.columns]
            kept = {k: self.grid.stored(self.params[k].float() * f) for k, f in self.factors.items()}
        return codes.to(torch.uint8), {**self.params, **kept}

    def solution(self, state: tuple[Tensor, Params]) -> Solution:
        """The solution of a state."""
        codes, params = state
        if self.mask is not None:
            spread = {
                k: self._by_group(v).repeat_interleave(self.size, 1)[:, : self.columns] for k, v in params.items()
            }
            codes = masked_codes(codes.float(), spread, self.grid, self.mask).to(torch.uint8)
        return Solution(codes.contiguous(), params, self.notes)

    def _gaps(self, codes: Tensor) -> Tensor:
        """How far the nearer neighbour of each code's value is; 0 where all values are one."""
        gaps = []
        for step in (-1, 1):
            away = (self.start.value((codes + step).clamp_(0, self.start.top)) - self.value).abs_()
            gaps.append(torch.where(away > 0, away, torch.inf))
        gap = torch.minimum(*gaps)
        return torch.where(gap.isfinite(), gap, 0.0)

    def _scaled(self, factors: Mapping[str, Tensor]) -> Params:
        """The parameters times their factors, rounded to their stored type straight through."""
        found = dict(self.params)
        for k, factor in factors.items():
            exact = self.params[k].float() * factor
            with torch.no_grad():
                away = self.grid.stored(exact).float() - exact
            found[k] = exact + away
        return found

    def _bind(self, params: Params) -> Levels:
        return self.grid.bind({k: self._by_group(v)[..., None] for k, v in params.items()})

    def _by_group(self, parameter: Tensor) -> Tensor:
        """A parameter `[out, groups]` of each group, of its own or of what it shares with others."""
        return parameter.repeat_interleave(self.count // parameter.shape[1], 1)

    def _grouped(self, x: Tensor) -> Tensor:
        """`x [out, in]` as `[out, groups, size]`."""
        missing = self.count * self.size - self.columns
        return torch.nn.functional.pad(x, (0, missing)).unflatten(1, (self.count, self.size))
