"""How much goes of each block where blocks may differ: what costs least for each parameter it frees is taken, and what
is left is measured anew.

A block is an attention, of which heads go, and a feed-forward, of which channels go; with none left the sub-block goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

ROUNDS = 8  # in how many the share is taken, about
_LEAST = 4  # of channels and heads the fourth part stays, at the least, where the sub-block does
_MOST_ROUNDS = 10 * ROUNDS
_FINER = 3  # channels that go together: as many as have a round's parameters, and as many fewer

Amounts = tuple[int, int]  # channels, and key and value heads, of a block


@dataclass(frozen=True)
class Move:
    """What may go next of block `index`: what it has then, and the parameters that frees."""

    index: int
    amounts: Amounts
    freed: int


# (what every block has, moves) -> what the model loses as it is, and with each move besides
Losses = Callable[[Sequence[Amounts], Sequence[Move]], tuple[float, Sequence[float]]]


@dataclass(frozen=True)
class Round:
    """After a round: the share of the blocks' parameters that is gone, and what the model lost before it."""

    gone: float
    loss: float


@dataclass
class Allocation:
    """The blocks of a model while they lose units.

    whole: what each has. units: what may go of one: `channels`, `heads`, `attention`, `ffn`, `layers` (both). step:
    what widths are a multiple of. size: parameters of a block by its number and amounts. kinds: of each block, what
    caches tell apart: the first of every kind keeps its attention, by which the length of a text is known.
    """

    whole: Sequence[Amounts]
    units: Sequence[str]
    step: int
    size: Callable[[int, Amounts], int]
    kinds: Sequence[str]
    amounts: list[Amounts] = field(init=False)
    rounds: list[Round] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.amounts = list(self.whole)
        self.total = sum(self._sizes(self.whole))

    def _sizes(self, amounts: Sequence[Amounts]) -> list[int]:
        return [self.size(index, mine) for index, mine in enumerate(amounts)]

    @property
    def gone(self) -> int:
        """Parameters that went."""
        return self.total - sum(self._sizes(self.amounts))

    def take(self, goal: int, losses: Losses, on_round: Callable[[float], None] = lambda share: None) -> None:
        """Take about `goal` parameters."""
        finest = self.finest
        for number in range(_MOST_ROUNDS):
            left = goal - self.gone
            if left <= finest / 2:
                return
            quota = left / max(1, ROUNDS - number)
            offered = dict.fromkeys([*self.moves(quota), *self.moves(quota / _FINER)])
            moves = [move for move in offered if move.freed <= left + finest / 2]
            if not moves:
                return
            before, after = losses(self.amounts, moves)
            costs = {move: lost - before for move, lost in zip(moves, after, strict=True)}
            self._apply(costs, quota - finest / 2, left + finest / 2)
            self.rounds.append(Round(self.gone / self.total, before))
            on_round(min(1.0, self.gone / goal))

    def _apply(self, costs: Mapping[Move, float], quota: float, most: float) -> None:
        """Carry out moves, one of a block at the most and one at the least, until `quota` parameters went, and never
        more than `most`: each time what costs least for every parameter more that it frees, of a block that lost
        something already too."""
        chosen: dict[int, Move] = {}

        def more(move: Move) -> tuple[float, int]:
            """What a move costs and frees beside what its block lost already."""
            before = chosen.get(move.index)
            if before is None:
                return costs[move], move.freed
            return costs[move] - costs[before], move.freed - before.freed

        while (taken := sum(move.freed for move in chosen.values())) < quota or not chosen:
            possible = [move for move in costs if 0 < more(move)[1] <= most - taken and self._may(move)]
            if not possible:
                return
            best = min(possible, key=lambda move: more(move)[0] / more(move)[1])
            chosen[best.index] = best
            self.amounts[best.index] = best.amounts

    @property
    def finest(self) -> int:
        """Parameters that the smallest thing has that may go."""
        return min((move.freed for move in self.moves(0)), default=0)

    @property
    def most(self) -> int:
        """Parameters that can go at the most: the first of every kind that stays keeps its attention, and one stays."""
        stays, gone = [], []  # of each kind: the least with one that stays, and with none
        for kind in dict.fromkeys(self.kinds):
            mine = [index for index, other in enumerate(self.kinds) if other == kind]
            none = [self.size(index, (0, 0)) for index in mine]
            least = [min(self.size(index, one) for one in self._least(index)) for index in mine]
            read = [min(self.size(index, one) for one in self._least(index) if one[1]) for index in mine]
            firsts = range(len(mine)) if "layers" in self.units else range(1)
            stays.append(min(sum(none[:first]) + read[first] + sum(least[first + 1 :]) for first in firsts))
            gone.append(sum(none) if "layers" in self.units else stays[-1])
        fewest = sum(map(min, stays, gone))
        if all(none < one for one, none in zip(stays, gone, strict=True)):
            fewest += min(one - none for one, none in zip(stays, gone, strict=True))
        return self.total - fewest

    def _least(self, index: int) -> list[Amounts]:
        """What a block may have in the end that has the fewest of one unit or the other."""
        channels, heads = self.whole[index]
        if "channels" in self.units:
            channels = max(self.step, math.ceil(channels / _LEAST / self.step) * self.step)
        if "heads" in self.units:
            heads = math.ceil(heads / _LEAST)
        found = [(channels, heads)]
        found += [(0, heads)] if "ffn" in self.units else []
        found += [(channels, 0)] if "attention" in self.units else []
        return [*found, (0, 0)] if "layers" in self.units else found

    def moves(self, about: float) -> list[Move]:
        """All that may go next. Channels go by as many as have `about` so many parameters, at least by a step."""
        found = []
        for index, mine in enumerate(self.amounts):
            before = self.size(index, mine)
            channel = self.size(index, self.whole[index]) - self.size(index, self._narrower(index))
            step = self.step * max(1, round(about / max(1, channel)))
            for amounts in self._ways(index, mine, step):
                move = Move(index, amounts, before - self.size(index, amounts))
                if self._may(move):
                    found.append(move)
        return found

    def _narrower(self, index: int) -> Amounts:
        channels, heads = self.whole[index]
        return max(0, channels - self.step), heads

    def _ways(self, index: int, mine: Amounts, step: int) -> Iterator[Amounts]:
        """What a block may have after one move."""
        channels, heads = mine
        whole_channels, whole_heads = self.whole[index]
        narrower = -(-(channels - step) // self.step) * self.step
        if "channels" in self.units and narrower >= max(self.step, math.ceil(whole_channels / _LEAST)):
            yield narrower, heads
        if "heads" in self.units and heads - 1 >= max(1, math.ceil(whole_heads / _LEAST)):
            yield channels, heads - 1
        if "ffn" in self.units and channels and heads:
            yield 0, heads
        if "attention" in self.units and channels and heads:
            yield channels, 0
        if "layers" in self.units and (channels or heads):
            yield 0, 0

    def _may(self, move: Move) -> bool:
        """Whether blocks are left, and the first of every kind has an attention."""
        after = [*self.amounts]
        after[move.index] = move.amounts
        first: dict[str, Amounts] = {}
        for kind, mine in zip(self.kinds, after, strict=True):
            if any(mine):
                first.setdefault(kind, mine)
        return bool(first) and all(heads for _, heads in first.values())


def by_unit(amounts: Sequence[Amounts], whole: Sequence[Amounts]) -> dict[str, dict[int, int]]:
    """By unit and block how many stay, of blocks that stay and lose some."""
    found: dict[str, dict[int, int]] = {"channels": {}, "heads": {}}
    for index, (mine, before) in enumerate(zip(amounts, whole, strict=True)):
        for unit, now, had in zip(found, mine, before, strict=True):
            if any(mine) and now < had:
                found[unit][index] = now
    return found


def layers_left(amounts: Sequence[Amounts]) -> tuple[int, ...]:
    """The blocks that stay."""
    return tuple(index for index, mine in enumerate(amounts) if any(mine))
