"""Grids: where numbers may land, as pure tensor maths. One file a grid."""

from whet.grids.codebook import CodebookGrid
from whet.grids.floats import FloatGrid
from whet.grids.integer import IntegerGrid, safe_scale_dtype
from whet.grids.schemes import BLOCKS, CODEBOOKS, FLOATS, Grid, parse_scheme

__all__ = [
    "BLOCKS",
    "CODEBOOKS",
    "FLOATS",
    "CodebookGrid",
    "FloatGrid",
    "Grid",
    "IntegerGrid",
    "parse_scheme",
    "safe_scale_dtype",
]
