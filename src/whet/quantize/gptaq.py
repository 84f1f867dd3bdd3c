"""Asymmetric calibration: what a linear should be on inputs that are not what they were (GPTAQ).

GPTQ keeps W x for the lighter model's inputs x. What later blocks were made for is W x̃, x̃ the inputs that the same
linear has in the original (Li et al. 2025, arXiv 2504.02692). The least of E‖W x̃ − q x‖² over all matrices q is
W + W E[(x̃ − x) xᵀ] H⁻¹, H = E[x xᵀ], and what any q loses beyond that is tr((that − q) H (that − q)ᵀ): so it is a
change of the target, after which every solver and grid is as it was.

All the way is too far: it follows the text it was taken from, and the way there is itself rounded. Half of it kept most
on other text (docs/quantizing.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from whet.quantize.gptq import factorize

SHARE = 0.5


def asymmetric_target(w: Tensor, h: Tensor, drift: Tensor, *, share: float = SHARE, damp: float = 0.01) -> Tensor:
    """The weights `[out, in]` to round instead of `w`.

    h: second moment `[in, in]` of the lighter model's inputs x. drift: `[in, in]`, E[(x̃ − x) xᵀ]. share: of the way to
    the optimum, 0 to 1. damp: added to the diagonal of h, as a share of its mean, tenfold again while it is not
    definite; where it never is, `w` itself.
    """
    factor = factorize(h, [(0, len(h))], damp)
    if factor is None:
        return w
    # h = M D Mᵀ in the order of the factor, M unit upper triangular
    order, feed = factor.order, factor.feed
    slope = (w.float() @ drift).t()[order]
    step = torch.linalg.solve_triangular(feed, slope, upper=True, unitriangular=True) / factor.pivots[:, None]
    step = torch.linalg.solve_triangular(feed.t(), step, upper=False, unitriangular=True)
    moved = torch.empty_like(step)
    moved[order] = step
    return w + share * moved.t()
