"""What a model is made of: families as data, blocks, linears as views, who shares an input, ties."""

from whet.anatomy.families import FAMILIES, auto_class, task_in
from whet.anatomy.family import AUTO, Family, architecture_of, task_of
from whet.anatomy.folds import Group, Unfolded, fold_groups, stream
from whet.anatomy.model import Anatomy, Linear, Module, Piece
from whet.anatomy.read import anatomy
from whet.anatomy.surgery import UNITS, Cut, Kept, block_cuts, columns, fewest_experts, resized, unit_counts, zeroed
from whet.anatomy.unknown import described, kinds_of, needs_code, quantized_by, stock_config, without_head

__all__ = [
    "AUTO",
    "FAMILIES",
    "UNITS",
    "Anatomy",
    "Cut",
    "Family",
    "Group",
    "Kept",
    "Linear",
    "Module",
    "Piece",
    "Unfolded",
    "anatomy",
    "architecture_of",
    "auto_class",
    "block_cuts",
    "columns",
    "described",
    "fewest_experts",
    "fold_groups",
    "kinds_of",
    "needs_code",
    "quantized_by",
    "resized",
    "stock_config",
    "stream",
    "task_in",
    "task_of",
    "unit_counts",
    "without_head",
    "zeroed",
]
