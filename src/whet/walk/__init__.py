"""The block loop, forward and in reverse: streams through a model one block at a time, second moments, the journal."""

from whet.walk.caches import RoundedCache
from whet.walk.gradients import Flow, GradientVisitor, GradientWalk, Sample, not_followed, refuse_unscored
from whet.walk.inputs import RoundedInputs
from whet.walk.journal import Journal, is_locked, locked
from whet.walk.moments import STARVED, SecondMoments, steadied
from whet.walk.skeleton import placed
from whet.walk.swaps import ORIGINAL, Swaps
from whet.walk.walk import BlockStep, Untouched, Visitor, Walk

__all__ = [
    "ORIGINAL",
    "STARVED",
    "BlockStep",
    "Flow",
    "GradientVisitor",
    "GradientWalk",
    "Journal",
    "RoundedCache",
    "RoundedInputs",
    "Sample",
    "SecondMoments",
    "Swaps",
    "Untouched",
    "Visitor",
    "Walk",
    "is_locked",
    "locked",
    "not_followed",
    "placed",
    "refuse_unscored",
    "steadied",
]
