"""Steps of training, whatever is trained: how many, on which batches, at which rates, and which iterate is kept.

A step is a function, and so is the order of what is trained on; `descend` takes them together, and a `Judge` tells on
the way which iterate is best, and in the end whether it is better than the start by more than chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

# Steps at most, and times at most that each batch is seen. Where there is little text a block learns it by heart: of
# a model of a million parameters, 3 bits trained on 8,192 tokens, KL on other text was 0.0348 after 25 times and 0.0376
# after 50, and on the same text it still fell.
_STEPS, _EPOCHS = 200, 25
STEP_TOKENS = 2048
# Losses are shares of the first; the gradient of one weight of many millions is still far above this epsilon.
_BETAS, _EPSILON = (0.9, 0.95), 1e-16
JUDGES = 16  # batches at most that tell how good an iterate is, where there are no others than those trained on
PIECE = 32  # tokens that tell it together: what is won on them is one observation

Taken = TypeVar("Taken")
State = TypeVar("State")


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


class Judge(Generic[State]):
    """What tells how good an iterate is, and keeps the best.

    losses: what is lost on each piece of text now, `[n]` float64. state: what there is to keep of the iterate now; of
    the start it is `start`. looks: after how many steps it looks. first: what the start loses, where that is known.
    """

    def __init__(
        self,
        losses: Callable[[], Tensor],
        state: Callable[[], State],
        start: State,
        looks: Collection[int],
        first: Tensor | None = None,
    ) -> None:
        self.losses, self.state, self.start, self.looks = losses, state, start, looks
        self.best, self.first = start, losses() if first is None else first
        self.found = self.first

    def look(self, steps: int) -> None:
        """Look, if it is time to after so many steps, and keep what is better than all that was seen."""
        if steps in self.looks and (now := self.losses()).sum().item() < self.found.sum().item():
            self.found, self.best = now, self.state()

    @property
    def helped(self) -> bool:
        """Whether the best is better than the start by more than the standard error of that: of little text one always
        seems so."""
        return surely(self.first - self.found)

    def kept(self) -> tuple[State, Tensor]:
        """The best, or where that may be chance the start, and what pieces lose with it."""
        return (self.best, self.found) if self.helped else (self.start, self.first)


def descend(
    order: Iterable[Taken], step: Callable[[int, Taken], None], judge: Judge[State] | None = None, first: int = 0
) -> None:
    """Take a step for each of `order`, told the step's number, from `first` on; `judge` looks after each."""
    for number, taken in enumerate(order, first):
        step(number, taken)
        if judge is not None:
            judge.look(number + 1)


def noise(gains: Tensor) -> float:
    """The standard error of the mean of what is gained on each piece of text (`[n]`); 0 where there is one piece."""
    return gains.std().item() / math.sqrt(len(gains)) if len(gains) > 1 else 0.0


def surely(gains: Tensor) -> bool:
    """Whether what was gained on pieces of text (`[n]`) is above nothing by more than its standard error."""
    return gains.mean().item() > noise(gains)


def in_pieces(x: Tensor) -> Tensor:
    """Sums of `x [..., L]`, a number a token, over pieces of every row, float64 `[n]`."""
    return torch.cat([piece.double().sum(-1).reshape(-1) for piece in x.split(PIECE, -1)])
