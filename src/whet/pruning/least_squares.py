"""Least squares that make up for what was taken: weights of the columns that stay, moved as little as helps.

With inputs x and what a linear is to give t, the best weights of the columns S are C_S (H_SS)⁻¹, C = E[t xᵀ] and H =
E[x xᵀ]. A ridge pulls them towards the weights they have, not towards 0, and is a share of each column's own moment:
pulled towards 0 by a share of the mean moment they were worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Ridges that are tried, as shares of a column's moment. Which helps depends on how much text there is: the one whose
# weights lose least on the verifying text is taken, and where none does, nothing is moved.
RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_WIDE = 4096


@dataclass
class Regression:
    """Second moments of a regression, means over tokens: `h [in, in]` of its inputs, `c [out, in]` of what is to be
    given with them, and `power`, the mean square of that."""

    h: Tensor
    c: Tensor
    power: float

    def loss(self, w: Tensor) -> float:
        """E|t − w x|², nonnegative up to rounding."""
        product = w @ self.h.to(w.dtype)
        return float(((product - 2 * self.c.to(w.dtype)) * w).sum()) + self.power


def refitted(w: Tensor, kept: Tensor, solve: Regression, judge: Regression | None) -> tuple[Tensor, float | None]:
    """Weights `[out, in]` with 0 in every column that is not among `kept`, and the ridge they were moved with.

    judge: the same of other text, by which the ridge is chosen; where every ridge loses more on it than weights that
    stay as they are, those do (and the ridge is None). Without one the second smallest ridge is taken.
    """
    dtype = torch.float64 if len(solve.h) <= _WIDE else torch.float32
    plain = torch.zeros_like(w, dtype=dtype)
    plain[:, kept] = w[:, kept].to(dtype)
    h = solve.h[kept][:, kept].to(dtype)
    missing = solve.c[:, kept].to(dtype) - plain[:, kept] @ h
    tried: list[tuple[float, float | None, Tensor]] = []
    if judge is not None:
        tried.append((judge.loss(plain), None, plain))
    for share in RIDGES if judge is not None else (RIDGES[1],):
        moved = _moved(plain, kept, h, missing, share)
        if moved is not None:
            tried.append((0.0 if judge is None else judge.loss(moved), share, moved))
    if not tried:
        return plain.to(w.dtype), None
    _, ridge, best = min(tried, key=lambda one: one[0])
    return best.to(w.dtype), ridge


def _moved(plain: Tensor, kept: Tensor, h: Tensor, missing: Tensor, ridge: float) -> Tensor | None:
    """`plain` with its columns `kept` moved, or None where the ridge is too small for what there is of text."""
    damped = h.clone()
    diagonal = h.diagonal()
    damped.diagonal().add_(ridge * diagonal + 1e-9 * diagonal.mean().clamp_min(1e-12))
    lower, info = torch.linalg.cholesky_ex(damped)
    if info.item():
        return None
    moved = plain.clone()
    moved[:, kept] += torch.cholesky_solve(missing.t(), lower).t()
    return moved if torch.isfinite(moved).all() else None
