"""Exact bytes of parts under a choice of grids."""

from whet.budget.sizes import linear_bytes, tensor_bytes

__all__ = ["linear_bytes", "tensor_bytes"]
