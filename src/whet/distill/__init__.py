"""Distillation: how far a student is from its teacher, in predictions, hidden states and attention."""

from __future__ import annotations

from whet.distill.divergences import DIVERGENCES, Divergence
from whet.distill.halves import Halves
from whet.distill.logits import Head, log_chances, prediction_loss
from whet.distill.relations import relation_heads, relation_loss
from whet.distill.states import Projections, layer_map, state_loss
from whet.distill.teaching import Objective, Teaching

__all__ = [
    "DIVERGENCES",
    "Divergence",
    "Halves",
    "Head",
    "Objective",
    "Projections",
    "Teaching",
    "layer_map",
    "log_chances",
    "prediction_loss",
    "relation_heads",
    "relation_loss",
    "state_loss",
]
