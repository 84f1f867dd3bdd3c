"""Grids: where numbers may land, as pure tensor maths. One file a grid, one row in `schemes`.

Whoever takes a grid asks for its facts and values (`Grid`, `CodedGrid`), never for its class.
"""

from whet.checkpoint.codes_whet import pack
from whet.grids.caches import CACHE_GRIDS, CACHE_PARTS, CacheGrid, find_cache_grid
from whet.grids.floats import FloatGrid
from whet.grids.grid import INTEGER, PLAIN, CodedGrid, Grid, Params
from whet.grids.grouped import GroupedGrid, safe_scale_dtype
from whet.grids.inputs import INPUTS, InputGrid, find_inputs
from whet.grids.integer import IntegerGrid
from whet.grids.nested import NestedGrid
from whet.grids.relaxed import Relaxed
from whet.grids.schemes import (
    BLOCKS,
    FLOATS,
    MIXES,
    PRESETS,
    ROUNDED,
    SMALL_FLOATS,
    find_mix,
    leaves_group,
    parse_scheme,
)
from whet.grids.shifted import ShiftedGrid
from whet.grids.small_floats import SmallFloatGrid
from whet.grids.table import TableGrid
from whet.grids.ternary import TernaryGrid

__all__ = [
    "BLOCKS",
    "CACHE_GRIDS",
    "CACHE_PARTS",
    "FLOATS",
    "INPUTS",
    "INTEGER",
    "MIXES",
    "PLAIN",
    "PRESETS",
    "ROUNDED",
    "SMALL_FLOATS",
    "CacheGrid",
    "CodedGrid",
    "FloatGrid",
    "Grid",
    "GroupedGrid",
    "InputGrid",
    "IntegerGrid",
    "NestedGrid",
    "Params",
    "Relaxed",
    "ShiftedGrid",
    "SmallFloatGrid",
    "TableGrid",
    "TernaryGrid",
    "find_cache_grid",
    "find_inputs",
    "find_mix",
    "leaves_group",
    "pack",
    "parse_scheme",
    "safe_scale_dtype",
]
