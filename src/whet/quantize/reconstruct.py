"""What remains of a linear makes up for what was taken: the best weights there are under a mask.

Of all `q [out, in]` that are 0 where the mask is, the one with the least tr((w − q) H (w − q)ᵀ) solves a system of its
own for every row: (q H) is (w H) wherever the row has weights left. SparseGPT goes through the columns once and lets
each error be made up for by the columns after it alone (Frantar & Alistarh 2023, arXiv 2301.00774). Conjugate gradients
on all rows at once, divided by the diagonal, come to the optimum itself with a matrix product a step: on the embedded
model within 1 % in 20 steps. With the same masks its KL at 50 % and 2:4 is 0.6 times that of SparseGPT's own pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whet.quantize.solution import row_slices

# Steps at most, and the share of the first residual (in the norm of H⁻¹, squared) at which the rest is not worth one.
STEPS, _ENOUGH = 32, 1e-4
ROUGH = 6  # steps that are enough to choose what is taken next


def reconstruct(
    w: Tensor, h: Tensor, mask: Tensor, start: Tensor | None = None, *, steps: int = STEPS, damp: float = 0.01
) -> Tensor:
    """`w [out, in]` with what `mask` (bool `[out, in]`, False where a weight is 0) leaves made up for the rest.

    h: second moment `[in, in]` of the inputs, float32. start: weights to begin from; `w` unless given. steps: at most
    so many. damp: added to the diagonal of h, as a share of its mean: weights that inputs tell little of stay near
    what they were. Where no input is ever anything but 0, weights stay.
    """
    h = h.clone()
    h.diagonal().add_(damp * h.diagonal().mean())
    first = torch.where(mask, w.float() if start is None else start, 0.0)
    if not h.diagonal().mean() > 0:
        return first
    scale = 1 / h.diagonal()
    return torch.cat([_solved(w[rows].float(), first[rows], h, mask[rows], scale, steps) for rows in row_slices(w, 1)])


def _solved(w: Tensor, q: Tensor, h: Tensor, mask: Tensor, scale: Tensor, steps: int) -> Tensor:
    """Conjugate gradients from `q` on, some rows at once. scale: the inverse of the diagonal of h."""
    residual = ((w - q) @ h) * mask
    direction = residual * scale
    size = first = torch.linalg.vecdot(residual, direction)[:, None]
    for _ in range(steps):
        if not size.sum() > _ENOUGH * first.sum():
            break
        product = (direction @ h) * mask
        step = _ratio(size, torch.linalg.vecdot(direction, product)[:, None])
        q = q + step * direction
        residual = residual - step * product
        scaled = residual * scale
        before, size = size, torch.linalg.vecdot(residual, scaled)[:, None]
        direction = scaled + _ratio(size, before) * direction
    return q


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where b is: a row that is solved stays."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)
