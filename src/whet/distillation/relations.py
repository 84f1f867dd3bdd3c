"""The loss on attention relations (MiniLMv2, Wang et al. 2020, arXiv 2012.15828): what the queries, keys and values of
a block have to do with each other, position by position.

Relations are `[positions, positions]` whatever the widths and heads of the two models are, so that the student may have
fewer heads and needs no projection.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relation_loss(
    student: Tensor, teacher: Tensor, heads: int, weights: Tensor, *, causal: bool = True
) -> tuple[Tensor, Tensor]:
    """KL of the student's relations from the teacher's, the mean over relation heads: its weighted sum over positions,
    and the sum of the weights.

    student, teacher: queries, keys or values of one block `[rows, positions, width]`, each of its own width, which
    `heads` divides. A relation is softmax(x xᵀ / √d) of the d channels of a relation head; causal: with those before
    alone. weights `[rows, positions]`; what is looked at is not weighted, so padding goes behind the text.
    """
    p, q = (_relations(x, heads, causal) for x in (teacher.detach(), student))
    seen = p.isfinite()
    gaps = torch.where(seen, p.exp() * (p - q).masked_fill(~seen, 0.0), 0.0).sum(-1)
    return (gaps.mean(1) * weights).sum(), weights.sum()


def relation_heads(*widths: int, most: int = 64) -> int:
    """The most relation heads that divide all of the widths, at most so many."""
    shared = math.gcd(*widths)
    return next(count for count in range(min(most, shared), 0, -1) if shared % count == 0)


def _relations(x: Tensor, heads: int, causal: bool) -> Tensor:
    """Logarithms `[rows, heads, positions, positions]`, −inf where nothing is looked at."""
    rows, positions, width = x.shape
    x = x.float() if x.dtype != torch.float64 else x
    x = x.view(rows, positions, heads, width // heads).transpose(1, 2)
    scores = x @ x.mT / math.sqrt(width // heads)
    if causal:
        later = torch.ones(positions, positions, dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores.log_softmax(-1)
