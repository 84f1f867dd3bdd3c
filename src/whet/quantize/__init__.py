"""Solvers: given a linear's weights, its second moment, a grid and a mask, which codes and parameters to store.

All have the signature `(w, h, grid, mask) -> Solution`, so every solver works with every grid. Those in BLOCKWISE go on
from there with all linears of a block at once (`round_block`).
"""

from __future__ import annotations

from collections.abc import Callable

from whet.quantize.block import Start, Trained, pull, round_block, usual_steps
from whet.quantize.gptq import gptq
from whet.quantize.nearest import nearest
from whet.quantize.solution import Solution, second_moment_error

SOLVERS: dict[str, Callable[..., Solution]] = {
    "nearest": nearest,
    "gptq": gptq,
    "block": gptq,
}
BLOCKWISE = frozenset({"block"})

__all__ = [
    "BLOCKWISE",
    "SOLVERS",
    "Solution",
    "Start",
    "Trained",
    "gptq",
    "nearest",
    "pull",
    "round_block",
    "second_moment_error",
    "usual_steps",
]
