"""The project's only training loop, and the optimiser for matrices that it may use."""

from __future__ import annotations

from whet.train.loop import Schedule, needed_bytes, token_loss, train
from whet.train.muon import Muon

__all__ = ["Muon", "Schedule", "needed_bytes", "token_loss", "train"]
