"""What goes of a model: single weights, which become zero, or whole units; each chosen by what it is worth."""

from whet.pruning.amounts import Amounts, Weights, shapes
from whet.pruning.importance import IMPORTANCES, find_importance, magnitude, sparsegpt, wanda
from whet.pruning.patterns import WITHIN, Grouped, Pattern, Unstructured, parse_groups, parse_pattern, parse_share
from whet.pruning.removal import BY_UNIT, Removal, parse_importance, parse_units
from whet.pruning.sizes import parse_size, parse_sizes
from whet.pruning.sparsity import Sparsity

__all__ = [
    "BY_UNIT",
    "IMPORTANCES",
    "WITHIN",
    "Amounts",
    "Grouped",
    "Pattern",
    "Removal",
    "Sparsity",
    "Unstructured",
    "Weights",
    "find_importance",
    "magnitude",
    "parse_groups",
    "parse_importance",
    "parse_pattern",
    "parse_share",
    "parse_size",
    "parse_sizes",
    "parse_units",
    "shapes",
    "sparsegpt",
    "wanda",
]
