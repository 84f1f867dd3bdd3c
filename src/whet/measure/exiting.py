"""From which probability on a token may leave a model early, so that it agrees with the whole model as asked.

On held-out text the whole model and every exit predict every token. A token leaves at the first exit where the
likeliest token has at least the probability of the threshold, and agrees where that token is the whole model's
likeliest too; one that does not leave agrees. Thresholds are tried from the strictest on, and the last one is taken
before the lower confidence limit of the agreement falls below the target ("Learn then Test", Angelopoulos, Bates,
Candès, Jordan and Lei 2022, arXiv 2110.01052: a fixed order needs no correction for how many were tried).

Tokens of one window are right or wrong together, so a window is one observation: the share of its tokens that agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from whet.errors import GateError
from whet.measure.statistics import lower_mean, surest_bet

# fmt: off
THRESHOLDS = (
    0.9999, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.985, 0.98, 0.97, 0.96, 0.95, 0.93, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7,
    0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3,
)
# fmt: on
CONFIDENCE = 0.95
_FEW = 0.01  # share of tokens that leave, below which nothing is gained


@dataclass(frozen=True)
class Window:
    """What the exits say of the tokens of a window: `sure [exits, tokens]`, the probability of the likeliest token, and
    `same [exits, tokens]`, whether it is the whole model's."""

    sure: Tensor
    same: Tensor

    def leaves(self, threshold: float) -> tuple[Tensor, Tensor]:
        """By token the number of the exit that it leaves at (as many as there are exits: none), and whether it
        agrees."""
        early = self.sure >= threshold
        left = early.any(0)
        at = early.int().argmax(0)
        same = self.same.gather(0, at[None])[0]
        return at.masked_fill(~left, len(early)), same | ~left


@dataclass(frozen=True)
class Left:
    """What a threshold does on some text: `agreement` with the whole model, `limit` which it is not below, of
    `windows`; `shares` of tokens that leave at each exit, and of those that do not."""

    threshold: float
    agreement: float
    limit: float
    windows: int
    shares: list[float]

    @property
    def left(self) -> float:
        """The share of tokens that leave."""
        return 1 - self.shares[-1]


def fewest(target: float) -> int:
    """Windows without which no such agreement can be shown, were there not one token that differs."""
    count = math.ceil(math.log(1 / (1 - CONFIDENCE)) / math.log1p(surest_bet(target) * (1 - target)))
    while lower_mean([1.0] * count, CONFIDENCE) < target:
        count += 1
    return count


def look(windows: Sequence[Window], threshold: float) -> Left:
    """What a threshold does on some text."""
    means, counts = [], np.zeros(len(windows[0].sure) + 1)
    for window in windows:
        at, same = window.leaves(threshold)
        means.append(same.double().mean().item())
        counts += np.bincount(at.cpu().numpy(), minlength=len(counts))
    shares = (counts / counts.sum()).tolist()
    return Left(threshold, float(np.mean(means)), lower_mean(means, CONFIDENCE), len(windows), shares)


def calibrate(windows: Sequence[Window], target: float) -> Left:
    """The lowest threshold of the list that keeps the agreement. Raises GateError where none does, or none lets tokens
    leave that does."""
    found: Left | None = None
    tried = []
    for threshold in THRESHOLDS:
        now = look(windows, threshold)
        tried.append(now)
        if now.limit < target:
            break
        found = now
    if found is not None and found.left >= _FEW:
        return found
    some = [one for one in (*tried, *(look(windows, t) for t in THRESHOLDS[len(tried) :])) if one.left >= _FEW]
    if not some:
        raise GateError(
            "At no exit any token is sure: none of {windows} windows has a token of a probability of {least} there. "
            "Put exits behind more blocks (--exits), or train them for longer (--steps).",
            windows=len(windows),
            least=THRESHOLDS[-1],
        )
    best = max(some, key=lambda one: one.limit)
    raise GateError(
        "No threshold lets tokens leave early and keeps an agreement of {target:.2%} with the whole model: the surest "
        "agrees on {agreement:.2%}, on no less than {limit:.2%} (95 % sure, {windows} windows), where {left:.1%} of "
        "tokens leave. Ask for a lower agreement, put exits behind more blocks (--exits), train them for longer "
        "(--steps), or give more held-out text.",
        target=target,
        agreement=best.agreement,
        limit=best.limit,
        windows=len(windows),
        left=best.left,
    )
