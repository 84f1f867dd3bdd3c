"""What a model is made of: families as data, blocks, linears as views, who shares an input, ties."""

from whet.anatomy.families import FAMILIES, auto_class, task_in
from whet.anatomy.family import AUTO, Family, LinearName, architecture_of, task_of
from whet.anatomy.folds import Group, Unfolded, fold_groups, stream
from whet.anatomy.model import Anatomy, Linear, Module, Piece
from whet.anatomy.read import anatomy
from whet.anatomy.stored import conversion
from whet.anatomy.unknown import (
    counts_layers,
    described,
    kinds_of,
    linear_paths,
    needs_code,
    own_code,
    plain_name,
    quantized_by,
    stacks,
    stock_config,
    why_not_packed,
    without_head,
)

__all__ = [
    "AUTO",
    "FAMILIES",
    "Anatomy",
    "Family",
    "Group",
    "Linear",
    "LinearName",
    "Module",
    "Piece",
    "Unfolded",
    "anatomy",
    "architecture_of",
    "auto_class",
    "conversion",
    "counts_layers",
    "described",
    "fold_groups",
    "kinds_of",
    "linear_paths",
    "needs_code",
    "own_code",
    "plain_name",
    "quantized_by",
    "stacks",
    "stock_config",
    "stream",
    "task_in",
    "task_of",
    "why_not_packed",
    "without_head",
]
