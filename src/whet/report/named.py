"""What the name of a scheme means, in a few words, for readers of a page who do not know the names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from whet.errors import UsageError
from whet.report.words import Words

if TYPE_CHECKING:
    from whet.grids import Grid

# What codes of a kind stand for, by how its name begins; the first that fits.
_VALUES = (
    *(("fp8e5m2", "e5m2"), ("fp8", "e4m3"), ("nvfp4", "nvfp4"), ("mxfp4", "mxfp4")),
    *(("fp4", "e2m1"), ("nf4", "nf4"), ("tq", "ternary"), ("iq", "table")),
)
_SHARED = ("nvfp4", "mxfp4")  # their scales are said with their values


def meanings(schemes: Iterable[str], say: Words) -> list[dict[str, str]]:
    """`name` and `text` of each scheme, in the order of their names; a name that no grid has is left out."""
    told = [{"name": name, "text": meaning(name, say)} for name in sorted({*schemes} - {"keep"})]
    return [one for one in told if one["text"]]


def meaning(scheme: str, say: Words) -> str:
    """`4-bit integers, symmetric, one scale per 64 weights of a row`; empty for a name that no grid has."""
    from whet.grids import BLOCKS, INTEGER, PLAIN, parse_scheme  # brings torch; the command line imports this file

    try:
        grid = parse_scheme(scheme)
    except UsageError:
        return ""
    kind = grid.kind.lower()
    if kind == PLAIN:
        return say("named.plain", name=grid.name)
    values = next((key for start, key in _VALUES if kind.startswith(start)), "integer")
    told = [say(f"named.{values}", bits=grid.bits)]
    if kind == INTEGER or values == "integer":
        told.append(say(f"named.zero.{grid.zero}"))
    if kind not in _SHARED:
        told.append(_scale(grid, say))
    if grid.name in BLOCKS:
        told.append(say("named.block"))
    return ", ".join(told)


def _scale(grid: Grid, say: Words) -> str:
    """What shares a scale."""
    if grid.rows == 0:
        return say("named.scale.matrix")
    if grid.rows > 1:
        return say("named.scale.square", rows=grid.rows, columns=grid.group)
    if grid.group == 0:
        return say("named.scale.row")
    return say("named.scale.group", group=getattr(grid, "part", grid.group))
