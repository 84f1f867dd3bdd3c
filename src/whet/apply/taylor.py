"""What channels and heads are worth by the model's own gradients, from one walk in reverse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import Linear
from whet.anatomy.surgery import GIVERS, READERS
from whet.walk import Flow


class Taylor:
    """A visitor of the walk in reverse. counts: by unit how many every block has. Afterwards `scores` has by unit and
    block what each is worth `[count]`, float64.

    The worth of a unit is Σ |w · g| over its weights and over samples, g the gradient of one sample: to first order how
    much taking one weight at a time changes the loss (LLM-Pruner, Ma et al. 2023, arXiv 2305.11627, `param_first`; its
    groups: a row of gate and up with a column of down, rows of q, k and v with columns of o). The gradient is of the
    model's own predictions (`whet.walk.gradients`), not of the text's tokens.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = counts
        self.scores: dict[str, dict[int, Tensor]] = {unit: {} for unit in counts}
        self.sums: dict[str, Tensor] = {}

    def head(self, *_: Any) -> None:
        """Nothing is asked of the head."""

    def embedding(self, *_: Any) -> None:
        """Nor of the embedding."""

    def flow(self, index: int, linears: list[Linear], flow: Flow) -> None:
        """Adds |g| of the weights of a block's units, row by row of a sample."""
        for linear in linears:
            if not any(linear.role in (READERS[unit], *GIVERS[unit]) for unit in self.counts):
                continue
            total = self.sums.setdefault(linear.address, torch.zeros(linear.shape))
            for x, g in zip(flow.inputs[linear.reads], flow.gradients[linear.address], strict=True):
                total += (g.float().t() @ x.float()).abs().to(total.device)

    def leave(self, index: int, linears: list[Linear], module: nn.Module, prefix: str) -> None:
        """Weighs them with the weights."""
        for unit, count in self.counts.items():
            worth = torch.zeros(count, dtype=torch.float64)
            for linear in linears:
                if linear.role not in (READERS[unit], *GIVERS[unit]):
                    continue
                w = linear.held.of(module.get_parameter(linear.held.parameter.removeprefix(prefix)).data)
                each = w.to(self.sums[linear.address]).abs() * self.sums[linear.address]
                along = each.sum(0) if linear.role == READERS[unit] else each.sum(1)
                worth += along.double().reshape(count, -1).sum(1)
            self.scores[unit][index] = worth
        self.sums.clear()

    def orders(self) -> dict[str, dict[int, list[int]]]:
        """By unit and block all of them, those that are worth most first; of equal ones the first."""
        return {
            unit: {i: one.argsort(descending=True, stable=True).tolist() for i, one in sorted(found.items())}
            for unit, found in self.scores.items()
        }
