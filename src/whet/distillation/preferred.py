"""The student is to prefer what its teacher writes to what it writes itself (DPKD, Li et al. 2024, arXiv 2406.19774):
DPO with the teacher for reference, its text chosen and the student's rejected."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from whet.distillation.logits import AT_ONCE, Head, log_chances

BETA = 2.0  # of mean log-ratios a token, which are small


def said(states: Tensor, head: Head, ids: Tensor, weights: Tensor, vocabulary: int, at_once: int = AT_ONCE) -> Tensor:
    """The mean log-probability `[rows]` that a model gives to the tokens that follow positions with a weight.

    states `[rows, positions, hidden]`, ids and weights `[rows, positions]`; the last position's weight is 0.
    """
    counted = weights > 0
    tokens = ids.roll(-1, -1)[counted]

    def part(some: Tensor, which: Tensor) -> Tensor:
        return log_chances(head(some), vocabulary).gather(-1, which[:, None])[:, 0]

    rows = max(1, at_once // (4 * vocabulary))
    pieces = zip(states[counted].split(rows), tokens.split(rows), strict=True)
    each = torch.cat([checkpoint(part, *some, use_reentrant=False, preserve_rng_state=False) for some in pieces])
    row = counted.nonzero()[:, 0]
    sums = torch.zeros(len(ids), dtype=each.dtype, device=each.device).index_add(0, row, each)
    return sums / counted.sum(-1).clamp_min(1)


def preferred_loss(student: Tensor, teacher: Tensor, beta: float = BETA) -> Tensor:
    """−log σ(β [log q/p of the teacher's text − log q/p of the student's]) of each pair `[n]`.

    student, teacher `[2, n]`: mean log-probabilities a token that each model gives to the teacher's texts, and to the
    student's.
    """
    chosen, rejected = student - teacher
    return -F.logsigmoid(beta * (chosen - rejected))
