"""Which blocks go, refined by evolution: a few swaps at a time, most of them judged on little text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

GENERATIONS, OFFSPRING, FINALISTS = 8, 8, 2
_MOST_SWAPS = 3

Loss = Callable[[frozenset[int], bool], float]  # of a set of blocks that go; on all of the text or on a part


def refined(gone: Sequence[int], blocks: int, loss: Loss, seed: int, on_tried: Callable[[], None]) -> list[int]:
    """As many blocks as `gone`, in the order in which they are taken: those of `gone` that stay in it come first.

    EvoPress (Sieberling et al. 2024, arXiv 2410.14649), from a good start in place of a random one: each generation has
    OFFSPRING that differ from the best by min(a, b) swaps of a block that goes with one that stays, a and b drawn from
    1 to 3; all are judged on a part of the text, FINALISTS of them and the best so far on all of it, so it never gets
    worse there.
    """
    chance = random.Random(f"evolution {seed}")
    known: dict[tuple[frozenset[int], bool], float] = {}

    def judged(one: frozenset[int], whole: bool) -> float:
        if (one, whole) not in known:
            known[one, whole] = loss(one, whole)
        return known[one, whole]

    best = frozenset(gone)
    for _ in range(GENERATIONS if 0 < len(best) < blocks else 0):
        offspring = {_swapped(best, blocks, chance) for _ in range(OFFSPRING)} - {best}
        few = sorted(sorted(offspring, key=sorted), key=lambda one: judged(one, False))[:FINALISTS]
        best = min([best, *few], key=lambda one: judged(one, True))
        on_tried()
    return [*(index for index in gone if index in best), *sorted(best - set(gone))]


def _swapped(gone: frozenset[int], blocks: int, chance: random.Random) -> frozenset[int]:
    found = set(gone)
    for _ in range(min(chance.randint(1, _MOST_SWAPS), chance.randint(1, _MOST_SWAPS))):
        found.remove(chance.choice(sorted(found)))
        found.add(chance.choice(sorted(set(range(blocks)) - found)))
    return frozenset(found)
