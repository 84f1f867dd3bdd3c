"""Training: the steps that whatever is trained takes (`steps`), the loop of a whole model, and its optimisers."""

from __future__ import annotations

from whet.train.loop import Schedule, needed_bytes, token_loss, train
from whet.train.muon import Muon
from whet.train.steps import (
    JUDGES,
    PIECE,
    STEP_TOKENS,
    Judge,
    adam,
    descend,
    in_pieces,
    noise,
    steps_of,
    surely,
    take_step,
    usual_steps,
)

__all__ = [
    "JUDGES",
    "PIECE",
    "STEP_TOKENS",
    "Judge",
    "Muon",
    "Schedule",
    "adam",
    "descend",
    "in_pieces",
    "needed_bytes",
    "noise",
    "steps_of",
    "surely",
    "take_step",
    "token_loss",
    "train",
    "usual_steps",
]
