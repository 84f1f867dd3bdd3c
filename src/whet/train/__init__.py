"""Training: the steps that whatever is trained takes (`steps`), the loop of a whole model, and its optimisers."""

from __future__ import annotations

from whet.train.groups import make_optimizers, roles_of, trained
from whet.train.loop import Batch, Loss, Settings, needed_bytes, token_loss, train
from whet.train.muon import Muon
from whet.train.rows import PackedRows, tokens_of, weights_of
from whet.train.schedule import Schedule
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
from whet.train.trackers import TRACKERS, Tracker, check_tracker
from whet.train.watch import Watch

__all__ = [
    "JUDGES",
    "PIECE",
    "STEP_TOKENS",
    "TRACKERS",
    "Batch",
    "Judge",
    "Loss",
    "Muon",
    "PackedRows",
    "Schedule",
    "Settings",
    "Tracker",
    "Watch",
    "adam",
    "check_tracker",
    "descend",
    "in_pieces",
    "make_optimizers",
    "needed_bytes",
    "noise",
    "roles_of",
    "steps_of",
    "surely",
    "take_step",
    "token_loss",
    "tokens_of",
    "train",
    "trained",
    "usual_steps",
    "weights_of",
]
