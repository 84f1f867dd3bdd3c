"""Masks: which weights are zero, chosen by what each is worth."""

from whet.prune.importance import IMPORTANCES, find_importance, magnitude, sparsegpt, wanda
from whet.prune.patterns import WITHIN, Grouped, Pattern, Unstructured, parse_groups, parse_pattern, parse_share
from whet.prune.sparsity import Sparsity

__all__ = [
    "IMPORTANCES",
    "WITHIN",
    "Grouped",
    "Pattern",
    "Sparsity",
    "Unstructured",
    "find_importance",
    "magnitude",
    "parse_groups",
    "parse_pattern",
    "parse_share",
    "sparsegpt",
    "wanda",
]
