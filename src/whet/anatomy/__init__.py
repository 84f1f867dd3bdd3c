"""What a model is made of: families as data, blocks, linears as views, who shares an input, ties."""

from whet.anatomy.families import FAMILIES, auto_class, task_in
from whet.anatomy.family import AUTO, HEADLESS, Family, architecture_of, task_of
from whet.anatomy.folds import Group, Unfolded, fold_groups, stream
from whet.anatomy.model import Anatomy, Linear, Module, Piece
from whet.anatomy.read import anatomy, family_of
from whet.anatomy.unknown import kinds_of, layer_counts, needs_code, quantized_by, stock_config

__all__ = [
    "AUTO",
    "FAMILIES",
    "HEADLESS",
    "Anatomy",
    "Family",
    "Group",
    "Linear",
    "Module",
    "Piece",
    "Unfolded",
    "anatomy",
    "architecture_of",
    "auto_class",
    "family_of",
    "fold_groups",
    "kinds_of",
    "layer_counts",
    "needs_code",
    "quantized_by",
    "stock_config",
    "stream",
    "task_in",
    "task_of",
]
