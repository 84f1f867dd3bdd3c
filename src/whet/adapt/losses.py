"""The loss of the next token, for the training loop: logits of a few positions at a time, never of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from whet.distillation import Halves
from whet.train import Batch

_AT_ONCE = 1 << 26  # bytes of one table of logits in float32, at most


class NextToken:
    """A loss of `(model, batch)`: the weighted sum over positions, and the sum of the weights.

    batch: `input_ids [rows, positions]` and `weights` of the same shape, each of predicting what follows that position:
    0 at the last one, in padding behind the text, and where nothing is to be learnt.
    """

    def __init__(self, model: Any) -> None:
        self.halves = Halves.of(model)
        self.rows = max(1, _AT_ONCE // (4 * self.halves.vocabulary))

    def __call__(self, _: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        counted, weights = batch["weights"] > 0, batch["weights"]
        hidden = self.halves.states(batch["input_ids"]).last_hidden_state[counted]
        following, each = _following(batch)[counted], weights[counted]

        def part(some: Tensor, tokens: Tensor, share: Tensor) -> Tensor:
            return (self._losses(some, tokens) * share).sum()

        if len(each) <= self.rows:
            return part(hidden, following, each), weights.sum()
        total = torch.zeros((), device=hidden.device)
        pieces = zip(hidden.split(self.rows), following.split(self.rows), each.split(self.rows), strict=True)
        for some, tokens, share in pieces:
            total = total + checkpoint(part, some, tokens, share, use_reentrant=False, preserve_rng_state=False)
        return total, weights.sum()

    @torch.no_grad()
    def losses(self, batch: Batch) -> Tensor:
        """What every position loses `[rows, positions]`, float32, whatever its weight."""
        ids = batch["input_ids"]
        hidden = self.halves.states(ids).last_hidden_state.flatten(0, 1)
        pieces = zip(hidden.split(self.rows), _following(batch).flatten().split(self.rows), strict=True)
        return torch.cat([self._losses(some, tokens) for some, tokens in pieces]).view(ids.shape)

    def _losses(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        return F.cross_entropy(self.halves.logits(hidden).float(), tokens, reduction="none")


def _following(batch: Batch) -> Tensor:
    """The token after every position, `[rows, positions]`; after the last one the first of the vocabulary."""
    return F.pad(batch["input_ids"][:, 1:], (0, 1))
