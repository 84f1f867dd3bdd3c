"""The loss on predictions, a few tokens at a time: logits `[tokens, vocabulary]` are never held for the whole batch.

4,096 tokens of a vocabulary of 152,000 are 2.5 GB in float32, and a divergence holds several such tables of both
models. So hidden states are kept, which are a hundredth of that, and logits of some rows are made of them, compared,
and made again in the backward pass. One row is under a megabyte at any vocabulary, so rows are enough to cut.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]  # hidden states [n, hidden] to logits [n, vocabulary]
AT_ONCE = 1 << 26  # bytes of one table of logits in float32, at most


def log_chances(logits: Tensor, vocabulary: int, temperature: float = 1.0) -> Tensor:
    """Log-probabilities `[n, vocabulary]` in float32 or wider, of the first `vocabulary` logits.

    Heads may be padded, each to a length of its own (151,936 and 152,064 for one tokenizer): no token has the rest.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide[..., :vocabulary] / temperature, -1)


def prediction_loss(
    divergence: Callable[[Tensor, Tensor], Tensor],
    student: tuple[Tensor, Head],
    teacher: tuple[Tensor, Head],
    weights: Tensor,
    vocabulary: int,
    *,
    temperature: float = 1.0,
    at_once: int = AT_ONCE,
) -> tuple[Tensor, Tensor]:
    """The divergence of the student's predictions from the teacher's: its weighted sum, and the sum of the weights.

    student, teacher: hidden states `[..., hidden]` of the same positions, and what makes logits of them. weights
    `[...]`: of every position; nothing is computed where it is 0. vocabulary: tokens that both have. temperature: both
    are divided by it, and the loss multiplied by its square, so that gradients stay of a size (Hinton et al. 2015).
    """
    counted = weights > 0
    own, other, each = student[0][counted], teacher[0][counted], weights[counted]

    def part(mine: Tensor, theirs: Tensor, share: Tensor) -> Tensor:
        with torch.no_grad():
            p = log_chances(teacher[1](theirs), vocabulary, temperature)
        q = log_chances(student[1](mine), vocabulary, temperature)
        return (divergence(p, q) * share).sum() * temperature**2

    rows = max(1, at_once // (4 * vocabulary))
    if len(each) <= rows:
        return part(own, other, each), weights.sum()
    total = torch.zeros((), device=own.device, dtype=torch.float32)
    for mine, theirs, share in zip(own.split(rows), other.split(rows), each.split(rows), strict=True):
        total = total + checkpoint(part, mine, theirs, share, use_reentrant=False, preserve_rng_state=False)
    return total, weights.sum()
