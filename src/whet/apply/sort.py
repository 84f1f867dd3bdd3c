"""One pass through the original that puts the channels and heads of every block in order of what they are worth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from torch import Tensor

from whet.anatomy.surgery import READERS
from whet.pruning.channels import ordered_units
from whet.walk import BlockStep
from whet.walk.moments import HeardEnough, SecondMoments


class Sorter:
    """Visits every block of a walk. counts: by unit (`channels`, `heads`) how many every block has. importance: by
    unit, by what they are ordered. `orders` has, by unit and block, all of them, those that are worth most first.

    Moments are those of the original. Those of a model that is cut to 75 % of its channels already give orders that
    are no better (KL of the embedded model at 75 % 0.067 against 0.065, at 60 % 0.370 against 0.365)."""

    def __init__(
        self, counts: Mapping[str, int], importance: Mapping[str, str], on_block: Callable[[], None] = lambda: None
    ) -> None:
        self.counts, self.importance, self.on_block = counts, importance, on_block
        self.orders: dict[str, dict[int, list[int]]] = {unit: {} for unit in counts}

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Orders a block's units by the second moment of what reads them. The block stays as it is."""
        readers = {unit: [x for x in step.linears if x.role == READERS[unit]] for unit in self.counts}
        moments = SecondMoments([x for mine in readers.values() for x in mine], step.prefix)
        for batch in range(len(step.walk.lighter)):
            with moments.listening(step.module), contextlib.suppress(HeardEnough):
                step.walk.run(step, step.walk.lighter[batch], batch)
        for unit, mine in readers.items():
            for reader in mine:
                h = moments.mean(reader.reads)
                self.orders[unit][step.index] = ordered_units(
                    self.importance[unit], step.weight(reader), h, self.counts[unit]
                )
        self.on_block()
        return {}
