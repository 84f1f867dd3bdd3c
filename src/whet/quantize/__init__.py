"""Solvers: given a linear's weights, its second moment, a grid and a mask, which codes and parameters to store.

All have the signature `(w, h, grid, mask) -> Solution`, so every solver works with every grid. Those in BLOCKWISE go on
from there with all linears of a block at once (`round_block`), and `tuned` with the whole model.
"""

from __future__ import annotations

from collections.abc import Callable

from whet.quantize.block import (
    JUDGES,
    STEP_TOKENS,
    Start,
    Trained,
    adam,
    pull,
    round_block,
    steps_of,
    take_step,
    usual_steps,
)
from whet.quantize.eora import eora
from whet.quantize.gptq import gptq
from whet.quantize.nearest import nearest
from whet.quantize.solution import Solution, second_moment_error

SOLVERS: dict[str, Callable[..., Solution]] = {
    "nearest": nearest,
    "gptq": gptq,
    "block": gptq,
    "tuned": gptq,
}
# What a user may say instead: seconds, the usual, and the closest there is.
EFFORTS = {"fast": "nearest", "good": "gptq", "best": "tuned"}
BLOCKWISE = frozenset({"block", "tuned"})

__all__ = [
    "BLOCKWISE",
    "EFFORTS",
    "JUDGES",
    "SOLVERS",
    "STEP_TOKENS",
    "Solution",
    "Start",
    "Trained",
    "adam",
    "eora",
    "gptq",
    "nearest",
    "pull",
    "round_block",
    "second_moment_error",
    "steps_of",
    "take_step",
    "usual_steps",
]
