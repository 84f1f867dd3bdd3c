"""A student and what was drawn from its teacher: the loss and the KL of `Teaching` without the teacher in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whet.distillation.halves import Halves
from whet.distillation.logits import AT_ONCE, log_chances
from whet.distillation.sampled import Drawn, estimated_kl, sampled_loss
from whet.train import Batch


class StoredTeaching:
    """A loss of `(student, batch)`, as `Teaching` is one with the divergence `forward`.

    batch: beside `input_ids` and `weights` what was drawn at the positions whose weight is not 0, row by row: `sizes`,
    `entries` and `entropy` of a `Drawn`; of held-out text `log_p`, the teacher's log-probability of every entry, and
    `top`, its likeliest token. vocabulary: tokens that were drawn from.
    """

    def __init__(self, student: Any, vocabulary: int, temperature: float) -> None:
        self.student, self.vocabulary, self.temperature = Halves.of(student), vocabulary, temperature

    def trained(self) -> nn.Module:
        """What the training loop is given."""
        model: nn.Module = self.student.model
        return model

    def beside(self, student: Any) -> StoredTeaching:
        """The same of another student."""
        return StoredTeaching(student, self.vocabulary, self.temperature)

    def __call__(self, _: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        counted = batch["weights"] > 0
        states = self.student.states(batch["input_ids"]).last_hidden_state[counted]
        each = batch["weights"][counted]
        drawn = Drawn(batch["sizes"], batch["entries"], batch["entropy"])
        return sampled_loss((states, self.student.logits), drawn, each, self.vocabulary, temperature=self.temperature)

    def taught(self, batch: Batch) -> None:
        """Nothing is computed by the teacher."""

    @torch.no_grad()
    def divergences(self, batch: Batch, _: Tensor | None = None) -> Tensor:
        """The forward KL at every position `[rows, positions]`, as what was drawn estimates it, without bias."""
        counted = batch["weights"] > 0
        positions, tokens, times = Drawn(batch["sizes"], batch["entries"], batch["entropy"]).read()
        picked = torch.cat([q[at, which] for q, at, which in self._parts(batch, positions, tokens)])
        each = times * estimated_kl(batch["log_p"], picked)
        sums = torch.zeros(2, int(counted.sum()), device=each.device)
        sums[0].index_add_(0, positions, each)
        sums[1].index_add_(0, positions, times.float())
        found = torch.zeros(counted.shape, device=each.device)
        found[counted] = sums[0] / sums[1]
        return found

    @torch.no_grad()
    def agreeing(self, batch: Batch) -> Tensor:
        """At every position with a weight, whether the likeliest tokens of both are the same `[n]`."""
        picks = torch.cat([q.argmax(-1) for q, _, _ in self._parts(batch)])
        return picks == batch["top"]

    def _parts(self, batch: Batch, positions: Tensor | None = None, tokens: Tensor | None = None) -> Any:
        """The student's log-probabilities of some positions at a time, and which entries are of them: their places
        among those and their tokens."""
        states = self.student.states(batch["input_ids"]).last_hidden_state[batch["weights"] > 0]
        rows = max(1, AT_ONCE // (4 * self.vocabulary))
        for start in range(0, len(states), rows):
            q = log_chances(self.student.logits(states[start : start + rows]), self.vocabulary)
            if positions is None or tokens is None:
                yield q, None, None
                continue
            inside = (positions >= start) & (positions < start + len(q))
            yield q, positions[inside] - start, tokens[inside]
