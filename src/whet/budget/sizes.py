"""Exact bytes of a lighter model before it is made: what a budget is checked against."""

from __future__ import annotations

import re
from collections.abc import Mapping

from whet.anatomy import Anatomy, Linear
from whet.checkpoint import TensorInfo
from whet.errors import UsageError, did_you_mean
from whet.grids import FloatGrid, Grid

# A quantized linear also stores its shape, two 64-bit integers.
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


def linear_bytes(grid: Grid, shape: tuple[int, int]) -> int:
    """Bytes of all tensors of one linear of `shape` (out, in) that was put onto `grid`."""
    return grid.nbytes(*shape) + (0 if isinstance(grid, FloatGrid) else _SHAPE_BYTES)


def tensor_bytes(anatomy: Anatomy, tensors: Mapping[str, TensorInfo], grids: Mapping[str, Grid]) -> dict[str, int]:
    """Bytes of tensor data by part (`linears`, `embedding`, `head`, `other`, `total`) with `grids` by address.

    What has no grid keeps its stored bytes. A head that the config ties to the embedding is not stored.
    """
    named = {linear.parameter: linear for linear in anatomy.linears()}
    named[anatomy.embedding.parameter] = anatomy.embedding
    if anatomy.head is not None:
        named[anatomy.head.parameter] = anatomy.head
    parts = dict.fromkeys(("linears", "embedding", "head", "other"), 0)
    for name, info in tensors.items():
        if name == anatomy.dropped:
            continue
        linear = named.get(name)
        part = linear.role if linear is not None and linear.role in parts else "linears" if linear else "other"
        grid = grids.get(linear.address) if linear else None
        parts[part] += linear_bytes(grid, linear.shape) if grid and linear else info.nbytes
    return {**parts, "total": sum(parts.values())}


def parse_size(text: str | int, whole: int) -> int:
    """Bytes that `text` means: `400MB`, `1.5GiB`, `400_000_000` (bytes), or `25%` of `whole` bytes.

    kB, MB, GB are thousands, KiB, MiB, GiB 1024; case does not matter. Raises UsageError that says what to write.
    """
    said = str(text).strip()
    match = _SIZE.fullmatch(said)
    if match is None:
        raise UsageError(
            f"{said!r} is not a size. Write a number with a unit, such as 400MB or 1.5GiB, or a share: 25%."
        )
    number, unit = float(match[1].replace("_", "")), match[2]
    if unit == "%":
        if not 0 < number <= 100:
            raise UsageError(f"{said} of the original is no budget. Give more than 0% and at most 100%.")
        return int(whole * number / 100)
    known = {name.lower(): factor for name, factor in _UNITS.items()}
    if (unit or "B").lower() not in known:
        raise UsageError(
            f"{said!r}: {unit} is not a unit of size.{did_you_mean(unit, _UNITS)} Units: kB, MB, GB (thousands), KiB, "
            "MiB, GiB (1024), or % of the original."
        )
    size = int(number * known[(unit or "B").lower()])
    if size < 1:
        raise UsageError(f"{said!r} leaves no room for anything. Give a size such as 400MB, or a share such as 25%.")
    return size
