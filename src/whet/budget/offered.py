"""Which schemes are priced for a linear: those that a target holds, and that are worth a price."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import torch

from whet.grids import Grid, parse_scheme
from whet.targets import Target

# What is worth pricing: bits and kind. An integer zero or a real one pays where codes are few.
_KINDS = (
    *(f"int{bits}{kind}" for bits in (2, 3) for kind in ("s", "", "z")),
    *(f"int4{kind}" for kind in ("s", "")),
    *(f"int{bits}s" for bits in (5, 6, 7, 8)),
)
_GROUPS = (32, 64, 128)


def offered(
    target: Target,
    shape: tuple[int, int],
    table: bool,
    scale_dtype: torch.dtype = torch.float16,
    widths: Collection[int] = (),
) -> list[Grid]:
    """The schemes that are worth pricing for `target` on a linear of `shape`, or on a `table` of that shape (embedding
    or head).

    widths: of all rows of the model. A scale a row is offered for 8 bits; where the target's groups must divide the row
    and 32 does not divide every width, for the others too, so that one scheme can go through the whole model, and a row
    that 32 does not divide has the nearest groups below 32, 64 and 128 that do divide it.
    """
    names: list[str] = list(target.schemes)
    if not names:
        columns = shape[1]
        ragged = target.divides and any(width % _GROUPS[0] for width in (columns, *widths))
        groups = [group for group in map(partial(_dividing, columns), _GROUPS) if group] if ragged else _GROUPS
        rows = _KINDS if ragged else ("int8s",)
        names = [f"{kind}-g{group}" for kind in _KINDS for group in dict.fromkeys(groups)] + [*rows]
    grids = [parse_scheme(name, scale_dtype) for name in names]
    return [grid for grid in grids if holds(target, grid, shape[1], table)]


def holds(target: Target, grid: Grid, columns: int, table: bool) -> bool:
    """Whether `target` holds rows of `columns` weights on `grid`, of integers or its own schemes."""
    if (target.schemes and grid.name not in target.schemes) or (table and not target.embedding):
        return False
    return grid.name == target.simplest or not (
        grid.bits not in target.bits
        or (target.groups is not None and grid.group not in target.groups)
        or (target.divides and grid.group and columns % grid.group)
        or (grid.zero == "real" and not target.real_zero)
        or (grid.zero == "int" and not target.integer_zero)
    )


def _dividing(columns: int, most: int) -> int:
    """The largest group above half of `most`, up to it, that divides a row; 0 where none does."""
    return next((group for group in range(most, most // 2, -1) if columns % group == 0 and group < columns), 0)
