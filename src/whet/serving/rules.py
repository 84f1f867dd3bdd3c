"""How a roll-out goes: its steps, and what each of them takes."""

from __future__ import annotations

from dataclasses import dataclass

from whet.errors import UsageError

STEPS = (5.0, 10.0, 25.0, 50.0, 100.0)


@dataclass(frozen=True)
class Rules:
    """How a roll-out goes.

    steps: percent of users, after Shadow. hold, requests: seconds and requests of the lighter side that a step takes
    at least. pairs: compared requests that Shadow takes at least; each later step takes a tenth of them. agreement: the
    share of the original's tokens that the lighter model must choose too; margin: how far below that is a failure.
    worse: by how much the rate of errors may be higher. shift: by how much the share that the lighter model gives the
    original's tokens may differ from the original's own, in the mean. lost: what share of a skill may be lost;
    questions: of each skill that Shadow takes at least, each later step a tenth. harmful: the share of harmful flips
    that escalation promised to stay below, None without it. error: the probability that a lighter model as good as the
    original is ever stopped by a statistical test.
    """

    steps: tuple[float, ...] = STEPS
    hold: float = 600.0
    requests: int = 200
    pairs: int = 200
    agreement: float = 0.85
    margin: float = 0.02
    worse: float = 0.05
    shift: float = 0.1
    lost: float = 0.05
    questions: int = 40
    harmful: float | None = None
    error: float = 0.01

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0.0, *self.steps), self.steps, strict=False))
        if not self.steps or not rising or self.steps[-1] != 100:
            raise UsageError(
                "Steps {steps} are not a rising list of percents that ends with 100. Say for example 5,10,25,50,100.",
                steps=", ".join(f"{step:g}" for step in self.steps) or "-",
            )
        if not 0 < self.margin < self.agreement < 1:
            raise UsageError(
                "An agreement of {agreement:g} with a margin of {margin:g} cannot be tested: the margin must be above "
                "0, the agreement above it and below 1.",
                agreement=self.agreement,
                margin=self.margin,
            )
        if not 0 < self.shift < 1 or not 0 < self.lost < 1 or self.questions < 1:
            raise UsageError("Shares may change, and skills be lost, by a part above 0 and below 1.")
        if self.hold < 0 or min(self.requests, self.pairs) < 1 or not 0 < self.worse < 1 or not 0 < self.error < 1:
            raise UsageError("A step needs at least 0 seconds, 1 request and 1 pair, and rates between 0 and 1.")
