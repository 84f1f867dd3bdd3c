"""Several teachers: the mixture of what they predict, in which each sequence is taught most by who predicts it best.

p = Σ w_k p_k with w_k ∝ exp(−CE_k / τ), CE_k the mean cross-entropy of teacher k on the sequence. The mixture covers
all that any of them may say; a product of theirs would be surer than each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from whet.distillation.halves import Halves
from whet.distillation.logits import AT_ONCE, log_chances
from whet.errors import UsageError

_SHARPNESS = 0.25  # nats a token that a teacher has to be better by to count e times as much


@dataclasses.dataclass
class _States:
    last_hidden_state: Tensor


class Panel:
    """Teachers in place of one `Halves`: `states` are those of all behind each other, with the logarithms of their
    weights, and `logits` of them the mixture's, times the temperature that they are divided by.
    `vocabulary`: tokens that all of them have.
    """

    def __init__(self, models: Sequence[Any], temperature: float = 1.0) -> None:
        self.every = [Halves.of(model) for model in models]
        self.temperature = temperature
        self.model, self.parts = self.every[0].model, self.every[0].parts
        self.vocabulary = min(one.vocabulary for one in self.every)

    @property
    def width(self) -> int:
        """Channels of the first one's stream."""
        return self.every[0].width

    def states(self, ids: Tensor, every: bool = False, weights: Tensor | None = None) -> Any:
        """`last_hidden_state` of `ids [rows, positions]`. weights: of positions, those that count of a sequence."""
        if every:
            raise UsageError("Hidden states are compared with those of one teacher. Leave out hidden, or the others.")
        found = [one.states(ids).last_hidden_state for one in self.every]
        said = torch.stack([self._said(one, h, ids, weights) for one, h in zip(self.every, found, strict=True)], -1)
        shares = (said / _SHARPNESS).log_softmax(-1)[:, None].expand(-1, ids.shape[1], -1)
        return _States(torch.cat([*(one.float() for one in found), shares], -1))

    def logits(self, hidden: Tensor) -> Tensor:
        """The mixture's, `[..., vocabulary]`, of states `[..., channels of all and one number a teacher]`."""
        widths = [one.width for one in self.every]
        *own, shares = hidden.split([*widths, len(widths)], -1)
        each = [
            log_chances(one.logits(h.to(one.model.dtype)), self.vocabulary, self.temperature)
            for one, h in zip(self.every, own, strict=True)
        ]
        mixed = torch.stack(each, -1) + shares[..., None, :]
        return torch.logsumexp(mixed, -1) * self.temperature

    def _said(self, one: Halves, hidden: Tensor, ids: Tensor, weights: Tensor | None) -> Tensor:
        """The mean log-probability that a teacher gives to the tokens of each row `[rows]`."""
        counted = torch.ones(ids[:, 1:].shape, device=ids.device) if weights is None else (weights[:, 1:] > 0).float()
        flat, targets = hidden[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        rows = max(1, AT_ONCE // (4 * self.vocabulary))
        parts = [
            log_chances(one.logits(some), self.vocabulary).gather(-1, which[:, None])[:, 0]
            for some, which in zip(flat.split(rows), targets.split(rows), strict=True)
        ]
        each = torch.cat(parts).view(counted.shape)
        return (each * counted).sum(-1) / counted.sum(-1).clamp_min(1)
