"""Distillation: how far a student is from its teacher, in predictions, hidden states and attention."""

from __future__ import annotations

from whet.distillation.divergences import DIVERGENCES, Divergence
from whet.distillation.halves import Halves
from whet.distillation.likeliest import SUPPORT, likeliest_loss, outcomes
from whet.distillation.logits import Head, log_chances, prediction_loss
from whet.distillation.panel import Panel
from whet.distillation.preferred import preferred_loss, said
from whet.distillation.relations import relation_heads, relation_loss
from whet.distillation.sampled import DRAWS, MOST_TOKENS, Drawn, estimated_kl, sampled_loss
from whet.distillation.states import Projections, layer_map, state_loss
from whet.distillation.stored import StoredTeaching
from whet.distillation.teaching import Distillation, Objective, Teaching
from whet.distillation.writing import Written, distinct, written

__all__ = [
    "DIVERGENCES",
    "DRAWS",
    "MOST_TOKENS",
    "SUPPORT",
    "Distillation",
    "Divergence",
    "Drawn",
    "Halves",
    "Head",
    "Objective",
    "Panel",
    "Projections",
    "StoredTeaching",
    "Teaching",
    "Written",
    "distinct",
    "estimated_kl",
    "layer_map",
    "likeliest_loss",
    "log_chances",
    "outcomes",
    "prediction_loss",
    "preferred_loss",
    "relation_heads",
    "relation_loss",
    "said",
    "sampled_loss",
    "state_loss",
    "written",
]
