"""Which experts of a block stay: what each adds to what its block gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EXPERT_IMPORTANCES = ("reap", "frequency")


@dataclass
class Routed:
    """Of the experts of a block, sums over the tokens that were sent to each: `tokens`, and `given` `[experts]`, the
    gate times the length of what the expert gave. Gates of a token's experts are made to add up to 1 first."""

    tokens: Tensor
    given: Tensor

    @classmethod
    def none(cls, experts: int) -> Routed:
        """Before any token."""
        return cls(torch.zeros(experts, dtype=torch.float64), torch.zeros(experts, dtype=torch.float64))

    def scores(self, importance: str) -> Tensor:
        """What each expert is worth `[experts]`, float64.

        `reap`: the mean of what it gave to a token that was sent to it (Lasby et al. 2025, arXiv 2510.13999, with
        gates made to add up to 1, as its authors do since March 2026). `frequency`: how many tokens were sent to it.
        """
        return self.given / self.tokens.clamp_min(1) if importance == "reap" else self.tokens

    def best(self, importance: str, keep: int) -> tuple[int, ...]:
        """The `keep` experts that are worth most, ascending; of equal ones the first."""
        order = self.scores(importance).argsort(descending=True, stable=True)
        return tuple(sorted(order[:keep].tolist()))
