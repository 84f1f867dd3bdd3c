"""How much each weight of a linear is worth: those of the lowest score are the first to be taken.

A score is a function `(w [out, in], h [in, in] or None) -> scores [out, in]`, float32, at least 0; only its order
counts. h is the second moment of the linear's inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.errors import UsageError, did_you_mean

Score = Callable[[Tensor, Tensor | None], Tensor]

_DAMP = 0.01  # of the mean diagonal, as SparseGPT and GPTQ add it
_WIDE = 4096  # channels above which a matrix in double precision would be the largest thing in memory


@dataclass(frozen=True)
class Importance:
    """A way to score weights. inputs: whether it needs the second moment of the linear's inputs. within: what its paper
    compares scores within where a share is taken, `row` or `matrix`."""

    score: Score
    inputs: bool
    within: str


def magnitude(w: Tensor, h: Tensor | None) -> Tensor:
    """|w|: what taking a weight costs where all inputs are alike."""
    return w.abs()


def wanda(w: Tensor, h: Tensor | None) -> Tensor:
    """|w| √h_jj: what taking a weight costs while the others stay (Sun et al. 2023, arXiv 2306.11695)."""
    assert h is not None
    return w.abs() * h.diagonal().clamp_min(0).sqrt()


def sparsegpt(w: Tensor, h: Tensor | None) -> Tensor:
    """w² / [H⁻¹]_jj: what taking a weight costs once all others have made up for it (Frantar & Alistarh 2023, arXiv
    2301.00774, eq. 3).

    h is damped by 1 % of its mean diagonal, tenfold again while it has no Cholesky factor. Where it never has one,
    as for inputs that are all 0, scores are magnitudes.
    """
    assert h is not None
    mean, damp = h.diagonal().mean(), _DAMP
    while damp <= 1:
        damped = h.to(torch.float64 if len(h) <= _WIDE else torch.float32, copy=True)
        damped.diagonal().add_(damp * mean)
        lower, info = torch.linalg.cholesky_ex(damped)
        if info.item() == 0 and torch.isfinite(lower.diagonal()).all():
            return w.square() / torch.cholesky_inverse(lower).diagonal().to(w.dtype)
        damp *= 10
    return w.abs()


IMPORTANCES: dict[str, Importance] = {
    "magnitude": Importance(magnitude, inputs=False, within="matrix"),
    "wanda": Importance(wanda, inputs=True, within="row"),
    "sparsegpt": Importance(sparsegpt, inputs=True, within="matrix"),
}


def find_importance(name: str) -> Importance:
    """The row of `name`. Raises UsageError with a did-you-mean."""
    if name not in IMPORTANCES:
        raise UsageError(
            "Importance {name!r} is not known.{near} Importances: {known}.",
            name=name,
            near=did_you_mean(name, IMPORTANCES),
            known=", ".join(IMPORTANCES),
        )
    return IMPORTANCES[name]
