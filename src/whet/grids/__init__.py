"""Grids: where numbers may land, as pure tensor maths. One file a grid."""

from whet.grids.floats import FloatGrid
from whet.grids.integer import IntegerGrid, safe_scale_dtype
from whet.grids.nested import NestedGrid
from whet.grids.schemes import BLOCKS, FLOATS, CodedGrid, Grid, parse_scheme
from whet.grids.table import TableGrid

__all__ = [
    "BLOCKS",
    "FLOATS",
    "CodedGrid",
    "FloatGrid",
    "Grid",
    "IntegerGrid",
    "NestedGrid",
    "TableGrid",
    "parse_scheme",
    "safe_scale_dtype",
]
