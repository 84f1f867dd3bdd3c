"""Solvers and transforms: given a linear's weights, its second moment, a grid and a mask, which codes and parameters
to store, and what is folded in before. Both are tables of rows (`solvers`, `transforms`); a method is a file.
"""

from __future__ import annotations

from whet.quantize.awq import awq
from whet.quantize.block import Start, pull, round_block
from whet.quantize.eora import eora
from whet.quantize.gptaq import asymmetric_target
from whet.quantize.gptq import gptq
from whet.quantize.nearest import nearest
from whet.quantize.readers import Reader, balanced, loss
from whet.quantize.reconstruct import ROUGH, STEPS, reconstruct
from whet.quantize.rotation import random_hadamard
from whet.quantize.smooth import smooth
from whet.quantize.solution import SLICE, Solution, holds_zero, second_moment_error
from whet.quantize.solvers import METHODS, ROUNDINGS, SOLVERS, WORDS, Effort, Rounding, find_solver
from whet.quantize.spinquant import LEARNING_STEPS, Turned, pivots, spinquant
from whet.quantize.transforms import TRANSFORMS, Transform, find_transform

__all__ = [
    "LEARNING_STEPS",
    "METHODS",
    "ROUGH",
    "ROUNDINGS",
    "SLICE",
    "SOLVERS",
    "STEPS",
    "TRANSFORMS",
    "WORDS",
    "Effort",
    "Reader",
    "Rounding",
    "Solution",
    "Start",
    "Transform",
    "Turned",
    "asymmetric_target",
    "awq",
    "balanced",
    "eora",
    "find_solver",
    "find_transform",
    "gptq",
    "holds_zero",
    "loss",
    "nearest",
    "pivots",
    "pull",
    "random_hadamard",
    "reconstruct",
    "round_block",
    "second_moment_error",
    "smooth",
    "spinquant",
]
