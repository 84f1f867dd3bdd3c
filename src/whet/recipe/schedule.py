"""In what steps a share of a model is taken, and how each is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whet.errors import UsageError
from whet.pruning import parse_share
from whet.steps.options import Distill

USUAL_TOKENS = 200_000  # that each step is trained on


@dataclass(frozen=True)
class Schedule:
    """share: of the blocks' parameters of the original, that is to go in all. size: what a step takes, in the mean.
    shape: `linear`, or `cubic`, which takes most at first and little at last (Zhu and Gupta 2017, arXiv 1710.01878).
    training: how what is left is trained after each. questions: those that steps may read, as records."""

    share: float
    size: float
    shape: str
    training: Distill
    questions: tuple[Mapping[str, Any], ...] = ()

    @property
    def count(self) -> int:
        """Steps, if none is undone."""
        return max(1, math.ceil(self.share / self.size - 1e-9))

    @property
    def stride(self) -> float:
        """What a step is of the whole way."""
        return 1 / self.count

    def document(self) -> dict[str, Any]:
        """As a recipe spells it, every default filled in."""
        return {"step": self.size, "shape": self.shape, "train": self.training.document()}

    def shaped(self, along: float) -> float:
        """The share of what goes in all that is gone at a place on the way, from 0 to 1."""
        return along if self.shape == "linear" else 1 - (1 - along) ** 3


def parse_schedule(remove: str | float, step: str | float, shape: str, training: Distill) -> Schedule:
    """A schedule as a recipe says it. Raises UsageError where a step is larger than the whole."""
    share, size = (float(parse_share(one, "row").share) for one in (remove, step))
    if size > share:
        raise UsageError(
            "A step of {step} is more than the {remove} that go in all. Give a smaller one, or leave the schedule out.",
            step=step,
            remove=remove,
        )
    return Schedule(share, size, shape, training)
