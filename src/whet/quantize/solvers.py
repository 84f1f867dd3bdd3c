"""Solvers by name: points of four axes, each of which is a file or two.

A linear is rounded (`rounding`); it may make up for what the blocks before it did to its inputs (`correct`, see
`gptaq`); all linears of a block may go on from there together (`block`); scales of all blocks may be trained end to end
(`tune`). Roundings have the signature `(w, h, grid, mask) -> Solution`, so every one works with every grid. A new one
is its file and its row in ROUNDINGS; a new way to put them together is a row in SOLVERS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from whet.errors import UsageError, did_you_mean
from whet.messages import Message
from whet.peers import refuse_peers_word
from whet.quantize.gptq import gptq
from whet.quantize.nearest import nearest
from whet.quantize.solution import Solution


@dataclass(frozen=True)
class Rounding:
    """How a linear is rounded by itself.

    solve: `(w [out, in], h [in, in], grid, mask) -> Solution`. text: whether it needs `h`, the second moment of the
    linear's inputs, and so text. work: multiplications and additions a weight takes, over the linear's columns.
    """

    solve: Callable[..., Solution]
    text: bool
    work: float


ROUNDINGS = {
    "nearest": Rounding(nearest, text=False, work=0.0),
    "gptq": Rounding(gptq, text=True, work=12.0),
}


@dataclass(frozen=True)
class Effort:
    """What is done to a model. writes: the original writes more text to learn from, where there is little."""

    rounding: str = "gptq"
    correct: bool = False
    block: bool = False
    tune: bool = False
    writes: bool = False

    @property
    def name(self) -> str:
        """What it is called: the first of SOLVERS that does the same, whoever writes the text."""
        return next(name for name, other in SOLVERS.items() if other == dataclasses.replace(self, writes=False))

    @property
    def alone(self) -> Effort:
        """The same without any training."""
        return dataclasses.replace(self, block=False, tune=False, writes=False)

    @property
    def text(self) -> bool:
        """Whether it needs text."""
        return ROUNDINGS[self.rounding].text or self.correct or self.block or self.tune

    @property
    def work(self) -> float:
        """Multiplications and additions that rounding a weight takes, over the linear's columns."""
        return ROUNDINGS[self.rounding].work

    @property
    def solve(self) -> Callable[..., Solution]:
        """What rounds one linear, or the rows of several, by itself: `Rounding.solve`."""
        return ROUNDINGS[self.rounding].solve


SOLVERS = {
    "nearest": Effort("nearest"),
    "gptq": Effort("gptq"),
    "gptaq": Effort("gptq", correct=True),
    "block": Effort("gptq", block=True),
    "tuned": Effort("gptq", block=True, tune=True),
    # what a user may say instead: seconds, the usual, and the closest there is
    "fast": Effort("nearest"),
    "good": Effort("gptq"),
    "best": Effort("gptq", block=True, tune=True, writes=True),
}
METHODS = tuple(name for name, effort in SOLVERS.items() if effort.name == name)
WORDS = {name: effort for name, effort in SOLVERS.items() if name not in METHODS}


def find_solver(name: str) -> Effort:
    """The row of `name`. Raises UsageError with a did-you-mean."""
    if name not in SOLVERS:
        refuse_peers_word("solver", name)
        words = {word: effort.name for word, effort in WORDS.items()}
        raise UsageError(
            "Solver {solver!r} is not known.{near} Solvers: {known}; or say {efforts}.",
            solver=name,
            near=did_you_mean(name, SOLVERS),
            known=", ".join(METHODS),
            efforts=Message("fast for {fast}, good for {good}, best for {best}", **words),
        )
    return SOLVERS[name]
