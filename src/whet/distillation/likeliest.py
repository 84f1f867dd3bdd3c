"""The loss on text that the student writes: forward and reverse KL on what the teacher finds likeliest (GKD, Agarwal et
al. 2023, arXiv 2306.13649).

The tokens beyond are one outcome more, whose chance is what is left. Predictions that are cut and scaled up to 1 would
drive the student away from a teacher that it equals, to one without a tail; with the rest as an outcome the loss is 0
where p = q, and never more than the KL of the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from whet.distillation.logits import AT_ONCE, Head, log_chances

SUPPORT = 64


def outcomes(p: Tensor, q: Tensor, support: int = SUPPORT) -> tuple[Tensor, Tensor]:
    """Log-probabilities `[n, support + 1]` of the likeliest tokens of p and of all others, from `p, q [n, vocabulary]`;
    p and q themselves where the vocabulary is not larger."""
    if p.shape[-1] <= support + 1:
        return p, q
    kept = p.topk(support, -1).indices
    return _with_rest(p, kept), _with_rest(q, kept)


def _with_rest(x: Tensor, kept: Tensor) -> Tensor:
    rest = x.scatter(-1, kept, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([x.gather(-1, kept), rest.clamp_min(-50.0)], -1)


def likeliest_loss(
    student: tuple[Tensor, Head],
    teacher: tuple[Tensor, Head],
    weights: Tensor,
    vocabulary: int,
    forward: float | Tensor = 0.5,
    *,
    support: int = SUPPORT,
    at_once: int = AT_ONCE,
) -> tuple[Tensor, Tensor]:
    """`forward` of KL(p‖q) and the rest of KL(q‖p) on the teacher's likeliest tokens, as a weighted sum over positions,
    and the sum of the weights. student, teacher, weights, vocabulary: as for `prediction_loss`."""
    counted = weights > 0
    own, other, each = student[0][counted], teacher[0][counted], weights[counted]

    def part(mine: Tensor, theirs: Tensor, share: Tensor) -> Tensor:
        with torch.no_grad():
            whole = log_chances(teacher[1](theirs), vocabulary)
        p, q = outcomes(whole, log_chances(student[1](mine), vocabulary), support)
        found = forward * (p.exp() * (p - q)).sum(-1) + (1 - forward) * (q.exp() * (q - p)).sum(-1)
        return (found * share).sum()

    rows = max(1, at_once // (4 * vocabulary))
    total = torch.zeros((), device=own.device, dtype=torch.float32 if own.dtype != torch.float64 else own.dtype)
    for given in zip(own.split(rows), other.split(rows), each.split(rows), strict=True):
        total = total + checkpoint(part, *given, use_reentrant=False, preserve_rng_state=False)
    return total, weights.sum()
