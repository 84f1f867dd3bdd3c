"""Grids: where numbers may land, as pure tensor maths. One file a grid."""

from whet.grids.floats import FloatGrid
from whet.grids.grouped import GroupedGrid, safe_scale_dtype
from whet.grids.integer import IntegerGrid
from whet.grids.nested import NestedGrid
from whet.grids.schemes import BLOCKS, FLOATS, SMALL_FLOATS, CodedGrid, Grid, parse_scheme
from whet.grids.shifted import ShiftedGrid
from whet.grids.small_floats import SmallFloatGrid
from whet.grids.table import TableGrid
from whet.grids.ternary import TernaryGrid

__all__ = [
    "BLOCKS",
    "FLOATS",
    "SMALL_FLOATS",
    "CodedGrid",
    "FloatGrid",
    "Grid",
    "GroupedGrid",
    "IntegerGrid",
    "NestedGrid",
    "ShiftedGrid",
    "SmallFloatGrid",
    "TableGrid",
    "TernaryGrid",
    "parse_scheme",
    "safe_scale_dtype",
]
