"""How far what a model predicts is from what the original does, from the hidden states at the end of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from whet.measure.divergence import score_tokens
from whet.walk.skeleton import Skeleton


@dataclass(frozen=True)
class Agreement:
    """Means over positions with a next token: `kl` (original ‖ other, nats), `top1` (the share with the same first
    choice), and the other's `surprise` at the text (nats). windows: the KL of each."""

    kl: float
    top1: float
    surprise: float
    windows: list[float]


def agreement(
    skeleton: Skeleton,
    batches: Sequence[Tensor],
    pairs: Iterable[tuple[Tensor, Tensor]],
    head: Tensor,
    other: Tensor,
    on_batch: Callable[[], None] = lambda: None,
) -> Agreement:
    """batches: tokens, int64 `[b, L]`. pairs: of each what the heads read, the original's and the other's `[b, L,
    hidden]`. head, other: their tables `[vocabulary, hidden]`."""
    kl = top1 = surprise = 0.0
    count = 0
    windows: list[float] = []
    for batch, (mine, theirs) in zip(batches, pairs, strict=True):
        for row in range(len(batch)):
            before, after = skeleton.next_logits(mine[row], head), skeleton.next_logits(theirs[row], other)
            each, same, _, told = score_tokens(before, after, batch[row, 1:][None])
            kl, top1 = kl + each.double().sum().item(), top1 + same.sum().item()
            surprise, count = surprise + told.double().sum().item(), count + each.numel()
            windows.append(each.double().mean().item())
        on_batch()
    return Agreement(kl / count, top1 / count, surprise / count, windows)
