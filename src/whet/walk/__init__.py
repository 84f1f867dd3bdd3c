"""The block loop: streams through a model one block at a time, second moments, and the journal of a run."""

from whet.walk.journal import Journal, alone
from whet.walk.moments import SecondMoments
from whet.walk.walk import BlockStep, Visitor, Walk

__all__ = ["BlockStep", "Journal", "SecondMoments", "Visitor", "Walk", "alone"]
