"""Grids: where numbers may land, as pure tensor maths. One file a grid."""

from whet.grids.codebook import CodebookGrid
from whet.grids.floats import FloatGrid
from whet.grids.grouped import GroupedGrid, safe_scale_dtype
from whet.grids.integer import IntegerGrid
from whet.grids.nested import NestedGrid
from whet.grids.schemes import BLOCKS, CODEBOOKS, FLOATS, CodedGrid, Grid, parse_scheme
from whet.grids.table import TableGrid

__all__ = [
    "BLOCKS",
    "CODEBOOKS",
    "FLOATS",
    "CodebookGrid",
    "CodedGrid",
    "FloatGrid",
    "Grid",
    "GroupedGrid",
    "IntegerGrid",
    "NestedGrid",
    "TableGrid",
    "parse_scheme",
    "safe_scale_dtype",
]
