"""Solvers: given a linear's weights, its second moment, a grid and a mask, which codes and parameters to store.

All have the signature `(w, h, grid, mask) -> Solution`, so every solver works with every grid. Those in ASYMMETRIC are
given other weights to round than the original's, for inputs that are not the original's (`asymmetric_target`). Those in
BLOCKWISE go on from there with all linears of a block at once (`round_block`), and `tuned` with the whole model.
"""

from __future__ import annotations

from collections.abc import Callable

from whet.quantize.awq import awq
from whet.quantize.block import (
    JUDGES,
    STEP_TOKENS,
    Start,
    Trained,
    adam,
    in_pieces,
    noise,
    pull,
    round_block,
    steps_of,
    surely,
    take_step,
    usual_steps,
)
from whet.quantize.eora import eora
from whet.quantize.gptaq import asymmetric_target
from whet.quantize.gptq import gptq
from whet.quantize.nearest import nearest
from whet.quantize.reconstruct import ROUGH, STEPS, reconstruct
from whet.quantize.rotation import random_hadamard
from whet.quantize.smooth import smooth
from whet.quantize.solution import SLICE, Solution, holds_zero, second_moment_error
from whet.quantize.spinquant import LEARNING_STEPS, Turned, pivots, spinquant
from whet.quantize.transform import Reader, Settle, balanced, loss

SOLVERS: dict[str, Callable[..., Solution]] = {
    "nearest": nearest,
    "gptq": gptq,
    "gptaq": gptq,
    "block": gptq,
    "tuned": gptq,
}
# What a user may say instead: seconds, the usual, and the closest there is.
EFFORTS = {"fast": "nearest", "good": "gptq", "best": "tuned"}
BEST = "best"  # which also has the original write more text to learn from
BLOCKWISE = frozenset({"block", "tuned"})
ASYMMETRIC = frozenset({"gptaq"})
# What may be folded into the original before anything is rounded; what of that needs no text; and what turns the
# residual stream, for which the head has to be a tensor of its own.
TRANSFORMS = ("smooth", "awq", "rotate", "quarot", "spinquant", "auto")
BLIND = frozenset({"rotate", "quarot"})
WHOLE = frozenset({"quarot", "spinquant"})

__all__ = [
    "ASYMMETRIC",
    "BEST",
    "BLIND",
    "BLOCKWISE",
    "EFFORTS",
    "JUDGES",
    "LEARNING_STEPS",
    "ROUGH",
    "SLICE",
    "SOLVERS",
    "STEPS",
    "STEP_TOKENS",
    "TRANSFORMS",
    "WHOLE",
    "Reader",
    "Settle",
    "Solution",
    "Start",
    "Trained",
    "Turned",
    "adam",
    "asymmetric_target",
    "awq",
    "balanced",
    "eora",
    "gptq",
    "holds_zero",
    "in_pieces",
    "loss",
    "nearest",
    "noise",
    "pivots",
    "pull",
    "random_hadamard",
    "reconstruct",
    "round_block",
    "second_moment_error",
    "smooth",
    "spinquant",
    "steps_of",
    "surely",
    "take_step",
    "usual_steps",
]
