"""Tests that may be looked at after every request: e-processes.

An e-process is the wealth of somebody who bets against a hypothesis at fair odds. If the hypothesis is true, wealth
exceeds 1/a at any time, ever, with probability at most a (Ville). So there is no number of looks to be paid for.
Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024;
Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests", JSPI 230, 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# Wealth is kept between these: a bet that has lost almost all of it can still recover, and none overflows.
_POOREST, _RICHEST = 1e-280, 1e280
_STAKES = (0.02, 0.06, 0.15, 0.35, 0.65, 0.95)  # of what a bet may lose at most; one of them is near the best
# How much worse the rate may be, in shares of all requests, and how much of the wealth is bet on each.
_WORSE, _SHARES = (0.02, 0.04, 0.1, 0.4), (0.25, 0.45, 0.2, 0.1)


def _kept(wealth: list[float]) -> list[float]:
    if min(wealth) >= _POOREST and sum(wealth) <= _RICHEST:
        return wealth
    return [min(max(w, _POOREST), _RICHEST) for w in wealth]


@dataclass
class Below:
    """Bets that the mean of numbers, each at most `most`, is below `least`. Hypothesis: it is `least` or more.

    To bet that a mean is above a value, add the negative numbers.
    """

    least: float
    most: float
    wealth: list[float] = field(default_factory=lambda: [1.0] * len(_STAKES))

    def __post_init__(self) -> None:
        reach = 1 / (self.most - self.least)
        self._bets = [stake * reach for stake in _STAKES]

    def add(self, number: float) -> None:
        excess = number - self.least
        self.wealth = _kept([w * (1 - bet * excess) for w, bet in zip(self.wealth, self._bets, strict=True)])

    @property
    def evidence(self) -> float:
        """Wealth now, of 1 at the start."""
        return sum(self.wealth) / len(self.wealth)


@dataclass
class Block:
    """Outcomes on both sides at about the same time: how many, and how many of them bad."""

    original: int = 0
    original_bad: int = 0
    lighter: int = 0
    lighter_bad: int = 0


@dataclass
class Worse:
    """Bets that the lighter side's rate of bad outcomes exceeds the original's. Hypothesis: it does not.

    Outcomes are taken in blocks: those of the original since the last block, and one of the lighter (or several, if
    none of the original came in between). Within a block both rates are compared with each other and with nothing
    else, so rates may drift with the time of day. Exact for any rates: the bets on a block are made from earlier ones.

    tolerated: by how much the lighter's rate may be higher and still count as not worse, for `proven`.
    """

    tolerated: float = 0.05
    wealth: list[float] = field(default_factory=lambda: list(_SHARES))
    seen: Block = field(default_factory=Block)
    open: Block = field(default_factory=Block)
    within: Below = field(init=False)

    def __post_init__(self) -> None:
        self.within = Below(self.tolerated, 1.0)

    def add(self, lighter: bool, bad: bool) -> None:
        """An outcome of one side."""
        if not lighter:
            self.open.original += 1
            self.open.original_bad += bad
            return
        self.open.lighter += 1
        self.open.lighter_bad += bad
        if self.open.original:
            self._close(self.open)
            self.open = Block()

    def _close(self, block: Block) -> None:
        before = self.seen
        rate = (before.original_bad + 0.2) / (before.original + 20)  # about 1 %, until something is known
        good = block.original - block.original_bad, block.lighter - block.lighter_bad
        bad = block.original_bad + block.lighter_bad
        for i, more in enumerate(_WORSE):
            worse = min(rate + more, 0.95)
            same = (block.original * rate + block.lighter * worse) / (block.original + block.lighter)
            likelihood = (rate / same) ** block.original_bad * ((1 - rate) / (1 - same)) ** good[0]
            likelihood *= (worse / same) ** block.lighter_bad * ((1 - worse) / (1 - same)) ** good[1]
            self.wealth[i] *= likelihood
        self.wealth = _kept(self.wealth)
        self.within.add(block.lighter_bad / block.lighter - block.original_bad / block.original)
        before.original += block.original
        before.lighter += block.lighter
        before.original_bad += block.original_bad
        before.lighter_bad += bad - block.original_bad

    @property
    def evidence(self) -> float:
        """Wealth of the bet that the lighter side is worse, of 1 at the start."""
        return sum(self.wealth)

    @property
    def proven(self) -> float:
        """Wealth of the bet that the lighter's rate is less than `tolerated` above the original's."""
        return self.within.evidence


def level(error: float, start: int) -> float:
    """The part of an allowed `error` that belongs to the test that was started as number `start`, from 1: 80 % to the
    first, which sees everything, and 20 % to all those that are started anew with a step; the sum never exceeds it."""
    return error * (0.8 if start == 1 else 0.2 / (start * (start - 1)))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
