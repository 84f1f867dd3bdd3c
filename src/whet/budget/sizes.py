"""Exact bytes of a lighter model before it is made: what a budget is checked against."""

from __future__ import annotations

import re
from collections.abc import Mapping

from whet.anatomy import Anatomy, Linear, Module, Piece
from whet.checkpoint import TensorInfo
from whet.checkpoint.modeling_whet import parts_of
from whet.errors import UsageError, did_you_mean
from whet.grids import Grid

# A linear whose codes are packed densely also stores its shape, two 64-bit integers.
_SHAPE_BYTES = 16
_SIZE = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?|\.[0-9]+)\s*(%|[A-Za-z]*)")
_UNITS = {
    "B": 1,
    **{unit: 1000**i for i, unit in enumerate(("kB", "MB", "GB", "TB"), 1)},
    **{unit: 1024**i for i, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)},
    **{unit: 1000**i for i, unit in enumerate(("k", "M", "G", "T"), 1)},
}


def tables(parts: Anatomy) -> list[Linear]:
    """Embedding, and the head where it is a tensor of its own."""
    return [parts.embedding] + ([parts.head] if parts.head is not None else [])


def widths(parts: Anatomy) -> set[int]:
    """How many weights rows have that may be rounded: of the blocks' linears, embedding and head."""
    return {linear.shape[1] for linear in (*parts.linears(), *tables(parts))}


def linear_bytes(grid: Grid, shape: tuple[int, int], first: bool = True) -> int:
    """Bytes of all tensors of one linear of `shape` (out, in) that was put onto `grid`.

    first: whether it is not stored together with rows above it, which have the shape of all.
    """
    shaped = first and "weight_shape" in parts_of(grid.table_entry("model"))
    return grid.nbytes(*shape) + _SHAPE_BYTES * shaped


def adapted(anatomy: Anatomy, grids: Mapping[str, Grid]) -> list[Module]:
    """The modules of the blocks that a repair has an adapter for: those with a linear that was rounded to codes."""
    return anatomy.modules({address: grid for address, grid in grids.items() if grid.coded is not None})


def adapter_bytes(anatomy: Anatomy, grids: Mapping[str, Grid], rank: int) -> int:
    """Bytes of the tensors of an adapter of `rank`: two matrices a module, 16 bits a number."""
    return sum(2 * min(rank, *module.shape) * sum(module.shape) for module in adapted(anatomy, grids))


def tensor_bytes(
    anatomy: Anatomy, tensors: Mapping[str, TensorInfo], grids: Mapping[str, Grid], repair: int | None = None
) -> dict[str, int]:
    """Bytes of tensor data by part (`linears`, `embedding`, `head`, `other`, `total`) with `grids` by address.

    What has no grid keeps its stored bytes. A head that the config ties to the embedding is not stored. repair: the
    rank of what is added to rounded linears of the blocks, which is then the part `adapter`.
    """
    parts = dict.fromkeys(("linears", "embedding", "head", "other"), 0)
    roles = {linear.parameter: linear.role for linear in (*anatomy.linears(), *tables(anatomy))}
    pieces: dict[str, list[Piece]] = {}
    for piece in anatomy.pieces(grids):
        pieces.setdefault(piece.linears[0].parameter, []).append(piece)
    for name, info in tensors.items():
        if name == anatomy.dropped:
            continue
        role = roles.get(name)
        part = "other" if role is None else role if role in parts else "linears"
        if name not in pieces:
            parts[part] += info.nbytes
        for piece in pieces.get(name, ()):
            grid = grids.get(piece.linears[0].address)
            kept = piece.shape[0] * piece.shape[1] * info.dtype.itemsize
            parts[part] += kept if grid is None else linear_bytes(grid, piece.shape)
    if repair:
        parts["adapter"] = adapter_bytes(anatomy, grids, repair)
    return {**parts, "total": sum(parts.values())}


def parse_size(text: str | int, whole: int) -> int:
    """Bytes that `text` means: `400MB`, `1.5GiB`, `400_000_000` (bytes), or `25%` of `whole` bytes.

    kB, MB, GB are thousands, KiB, MiB, GiB 1024; case does not matter. Raises UsageError that says what to write.
    """
    said = str(text).strip()
    match = _SIZE.fullmatch(said)
    if match is None:
        raise UsageError(
            "{size!r} is not a size. Write a number with a unit, such as 400MB or 1.5GiB, or a share: 25%.", size=said
        )
    number, unit = float(match[1].replace("_", "")), match[2]
    if unit == "%":
        if not 0 < number <= 100:
            raise UsageError("{size} of the original is no budget. Give more than 0% and at most 100%.", size=said)
        return int(whole * number / 100)
    known = {name.lower(): factor for name, factor in _UNITS.items()}
    if (unit or "B").lower() not in known:
        raise UsageError(
            "{size!r}: {unit} is not a unit of size.{near} Units: kB, MB, GB (thousands), KiB, MiB, GiB (1024), or % "
            "of the original.",
            size=said,
            unit=unit,
            near=did_you_mean(unit, _UNITS),
        )
    size = int(number * known[(unit or "B").lower()])
    if size < 1:
        raise UsageError(
            "{size!r} leaves no room for anything. Give a size such as 400MB, or a share such as 25%.", size=said
        )
    return size
