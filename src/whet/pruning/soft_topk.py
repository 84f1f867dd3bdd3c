"""SoftTopK: which k of n are chosen, so that a gradient flows through the choice."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_topk(scores: Tensor, count: int, softness: float) -> Tensor:
    """Shares `[..., n]`, each from 0 to 1 and `count` together, of `scores [..., n]`.

    They maximise Σ s m − ε Σ m (ln m − 1) over 0 ≤ m ≤ 1 with Σ m = k, ε = `softness`: m = min(exp((s + a) / ε), 1)
    (Lei et al. 2023, CoDA, arXiv 2304.04947; Hou et al. 2025, instruction-following pruning, arXiv 2501.02086). They
    find a by twenty rounds, a = ε ln k − ε ln Σ exp((s + b) / ε), b = min(−s − a, 0), which come near; here it is
    exact: the j largest are 1, and the others share k − j as a softmax. j is the first for which none of these is
    above 1.

    softness > 0: towards 0 the `count` largest are 1 and the others 0. count: from 1 to n. The gradient is that of the
    shares with j as it is; what is 1 has none.
    """
    z = scores / softness
    with torch.no_grad():
        ordered, order = z.sort(dim=-1, descending=True)
        rest = ordered.flip(-1).logcumsumexp(-1).flip(-1)  # ln Σ exp over an entry and all behind it
        left = torch.arange(count, 0, -1, device=z.device, dtype=z.dtype)
        fits = left.log() + ordered[..., :count] - rest[..., :count] <= 1e-6
        fits[..., -1] = True  # one that is left to share out fits always
        whole = fits.to(torch.int64).argmax(-1, keepdim=True)
        rank = torch.empty_like(order).scatter_(-1, order, torch.arange(z.shape[-1], device=z.device).expand_as(order))
        full = rank < whole
    shares = torch.softmax(z.masked_fill(full, -torch.inf), -1) * (count - whole)
    return torch.where(full, torch.ones_like(shares), shares)


def hard_topk(scores: Tensor, count: int) -> Tensor:
    """1 for the `count` largest of `scores [..., n]`, the first of equal ones, and 0 for the others."""
    order = scores.argsort(dim=-1, descending=True, stable=True)[..., :count]
    return torch.zeros_like(scores).scatter_(-1, order, 1.0)
