"""How much of a model goes: what every unit weighs, and the shapes that remove a share of the blocks' parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

_LARGEST = 256  # widths are multiples of it in wide feed-forwards: blocks of llama.cpp's K-quants are as long
_STEPS = 32  # a feed-forward has at least so many multiples of what its width goes down by
_HIDDEN_STEPS = 16  # the same of a residual stream
_SHORTEST = 32
_LEAST = Fraction(1, 4)  # of channels, heads and blocks, what stays at the least


@dataclass(frozen=True)
class Amounts:
    """How many of each unit stay: blocks, of every block channels, key and value heads, and experts, and directions of
    the residual stream (0: it is not turned, and stays)."""

    layers: int
    channels: int
    heads: int
    experts: int
    hidden: int = 0

    def record(self) -> dict[str, int]:
        """As plain JSON."""
        found = asdict(self)
        return found if self.hidden else {unit: number for unit, number in found.items() if unit != "hidden"}


@dataclass(frozen=True)
class Weights:
    """Parameters of a model's blocks: `block` of each, and in the mean how many of a block go with one channel, head
    and expert; and how many units there are (`whole`), 0 of a kind that cannot be taken."""

    block: Sequence[int]
    channel: int
    head: int
    expert: int | Fraction
    whole: Amounts

    @property
    def total(self) -> int:
        """Parameters of all blocks."""
        return sum(self.block)

    def removed(self, amounts: Amounts) -> Fraction:
        """The share of the blocks' parameters that goes, of blocks of the mean size."""
        mean = Fraction(self.total, len(self.block))
        whole = self.whole
        gone = Fraction(self.channel * (whole.channels - amounts.channels) + self.head * (whole.heads - amounts.heads))
        gone += self.expert * (whole.experts - amounts.experts)
        return 1 - amounts.layers * (mean - gone) * self.narrowed(amounts) / self.total

    def narrowed(self, amounts: Amounts) -> Fraction:
        """The share of a block's parameters that stays where the residual stream gets narrower, which almost all of
        them are along."""
        return Fraction(amounts.hidden, self.whole.hidden) if self.whole.hidden else Fraction(1)

    @property
    def hidden_step(self) -> int:
        """What the width of the residual stream is a multiple of afterwards: at least the block of llama.cpp's plain
        quants."""
        return max(_SHORTEST, min(_LARGEST, 1 << int(math.log2(max(1, self.whole.hidden // _HIDDEN_STEPS)))))

    @property
    def step(self) -> int:
        """What a feed-forward's width is a multiple of afterwards."""
        return max(1, min(_LARGEST, 1 << int(math.log2(max(1, self.whole.channels // _STEPS)))))


def shapes(weights: Weights, share: Fraction, units: Sequence[str]) -> list[Amounts]:
    """The shapes with which about `share` of the blocks' parameters goes, and no more than it has to; those with the
    most blocks first, then the most heads. Empty where there is none.

    About: within half a step of the feed-forwards' width, where channels are among the `units`, else within half an
    expert, head or block.
    """
    whole = weights.whole
    found: dict[Amounts, None] = {}
    for hidden, layers, heads in itertools.product(
        _widths(weights) if "hidden" in units else [whole.hidden],
        _counts(whole.layers, "layers" in units),
        _counts(whole.heads, "heads" in units),
    ):
        for amounts in _filled(weights, share, units, Amounts(layers, whole.channels, heads, whole.experts, hidden)):
            found[amounts] = None
    least = [one for one in found if not any(_within(other, one) for other in found if other != one)]
    return sorted(least, key=lambda one: (-one.layers, -one.heads, -one.hidden))


def _filled(weights: Weights, share: Fraction, units: Sequence[str], amounts: Amounts) -> list[Amounts]:
    """`amounts` with as many channels or experts as leave `share`, where there are such."""
    whole = weights.whole
    lacking = (share - weights.removed(amounts)) * weights.total / amounts.layers / weights.narrowed(amounts)
    finest = None
    if "channels" in units and weights.channel:
        step = weights.step
        steps = (whole.channels - lacking / weights.channel) / step
        width = round(steps) * step if lacking > 0 else whole.channels
        if width >= max(step, math.ceil(whole.channels * _LEAST)):
            finest = replace(amounts, channels=width)
    elif "experts" in units and weights.expert:
        number = whole.experts - max(0, round(lacking / weights.expert))
        if number >= max(1, math.ceil(whole.experts * _LEAST)):
            finest = replace(amounts, experts=number)
    else:
        unit = min(
            [Fraction(weights.head * whole.layers)] * ("heads" in units)
            + [Fraction(max(weights.block))] * ("layers" in units)
            + [Fraction(weights.total * weights.hidden_step, max(1, whole.hidden))] * ("hidden" in units)
        )
        if abs(share - weights.removed(amounts)) * weights.total <= unit / 2:
            finest = amounts
    return [finest] if finest is not None and finest != whole else []


def _counts(whole: int, some: bool) -> range:
    """How many of a unit may stay, the most first."""
    return range(whole, max(1, math.ceil(whole * _LEAST)) - 1, -1) if some and whole else range(whole, whole - 1, -1)


def _widths(weights: Weights) -> list[int]:
    """What may stay of the residual stream's width, the most first."""
    whole, step = weights.whole.hidden, weights.hidden_step
    return [whole, *(width for width in range((whole - 1) // step * step, 0, -step) if width >= whole * _LEAST)]


def _within(one: Amounts, other: Amounts) -> bool:
    """Whether `other` takes all that `one` takes, and more."""
    return all(
        mine >= theirs
        for mine, theirs in zip(
            (one.layers, one.channels, one.heads, one.experts, one.hidden),
            (other.layers, other.channels, other.heads, other.experts, other.hidden),
            strict=True,
        )
    )
