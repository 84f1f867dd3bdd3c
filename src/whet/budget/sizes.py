"""Exact bytes of a lighter model before it is made: what a budget is checked against."""

from __future__ import annotations

from collections.abc import Mapping

from whet.anatomy import Anatomy
from whet.checkpoint import TensorInfo
from whet.grids import IntegerGrid

# A quantized linear also stores its shape, two 64-bit integers.
_SHAPE_BYTES = 16


def linear_bytes(grid: IntegerGrid, shape: tuple[int, int]) -> int:
    """Bytes of all tensors of one quantized linear of `shape` (out, in)."""
    return grid.nbytes(*shape) + _SHAPE_BYTES


def tensor_bytes(
    anatomy: Anatomy, tensors: Mapping[str, TensorInfo], grids: Mapping[str, IntegerGrid]
) -> dict[str, int]:
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
