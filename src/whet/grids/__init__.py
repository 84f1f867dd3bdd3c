"""Grids: where numbers may land, as pure tensor maths. One file a grid."""

from whet.grids.integer import IntegerGrid, safe_scale_dtype
from whet.grids.schemes import parse_scheme

__all__ = ["IntegerGrid", "parse_scheme", "safe_scale_dtype"]
