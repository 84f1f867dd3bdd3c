"""Solvers: given a linear's weights, its second moment, a grid and a mask, which codes and parameters to store.

All have the signature `(w, h, grid, mask) -> Solution`, so every solver works with every grid.
"""

from __future__ import annotations

from collections.abc import Callable

from whet.quantize.gptq import gptq
from whet.quantize.nearest import nearest
from whet.quantize.solution import Solution, second_moment_error

SOLVERS: dict[str, Callable[..., Solution]] = {
    "nearest": nearest,
    "gptq": gptq,
}

__all__ = ["SOLVERS", "Solution", "gptq", "nearest", "second_moment_error"]
