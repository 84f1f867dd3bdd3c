"""What a model is made of: families as data, blocks, linears as views, who shares an input, ties; and surgery."""

from whet.anatomy.families import FAMILIES, auto_class, task_in
from whet.anatomy.family import AUTO, HEADLESS, Family, LinearName, architecture_of, task_of
from whet.anatomy.folds import Group, Unfolded, fold_groups, stream
from whet.anatomy.layers import BLOCK_CONFIGS, MODULE, config_of, entries, per_layer, why_alike
from whet.anatomy.model import Anatomy, Linear, Module, Piece
from whet.anatomy.narrow import factor as narrow_factor
from whet.anatomy.narrow import narrowed_rest
from whet.anatomy.read import anatomy, family_of
from whet.anatomy.stored import conversion, turned
from whet.anatomy.surgery import (
    UNITS,
    Cut,
    Kept,
    block_cuts,
    columns,
    fewest_experts,
    renumbered,
    resized,
    unit_counts,
    zeroed,
)
from whet.anatomy.unknown import (
    kinds_of,
    layer_counts,
    linear_paths,
    needs_code,
    own_code,
    plain_name,
    quantized_by,
    stacks,
    stock_config,
    why_not_packed,
)

__all__ = [
    "AUTO",
    "BLOCK_CONFIGS",
    "FAMILIES",
    "HEADLESS",
    "MODULE",
    "UNITS",
    "Anatomy",
    "Cut",
    "Family",
    "Group",
    "Kept",
    "Linear",
    "LinearName",
    "Module",
    "Piece",
    "Unfolded",
    "anatomy",
    "architecture_of",
    "auto_class",
    "block_cuts",
    "columns",
    "config_of",
    "conversion",
    "entries",
    "family_of",
    "fewest_experts",
    "fold_groups",
    "kinds_of",
    "layer_counts",
    "linear_paths",
    "narrow_factor",
    "narrowed_rest",
    "needs_code",
    "own_code",
    "per_layer",
    "plain_name",
    "quantized_by",
    "renumbered",
    "resized",
    "stacks",
    "stock_config",
    "stream",
    "task_in",
    "task_of",
    "turned",
    "unit_counts",
    "why_alike",
    "why_not_packed",
    "zeroed",
]
