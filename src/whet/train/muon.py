"""Muon: momentum whose matrix updates are made nearly orthogonal.

Source: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the quintic
Newton-Schulz iteration given there, and the scale `0.2 * sqrt(max(rows, columns))` of Liu et al., "Muon is Scalable
for LLM Training" (arXiv:2502.16982, eq. 4), which gives updates the RMS of AdamW's so that one learning rate fits both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonalized(update: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to `update [..., rows, columns]`, roughly: singular values in 0.7 to 1.2.

    Computed in bfloat16, in which the iteration is stable, and given back in the type of `update`.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for 2-D parameters; equal shapes are orthogonalised as one batch.

    Args:
        params: matrices only (embedding, head and norms go to AdamW).
        lr: learning rate in AdamW's terms.
        momentum: of the gradient's running sum, Nesterov.
        weight_decay: decoupled, times `lr`.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 2e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    shapes.setdefault(param.shape, []).append((param, param.grad))
            for shape, pairs in shapes.items():
                updates = []
                for param, grad in pairs:
                    state = self.state[param]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(param)
                    state["momentum"].lerp_(grad, 1 - group["momentum"])
                    updates.append(grad.lerp(state["momentum"], group["momentum"]))
                scale = 0.2 * max(shape) ** 0.5
                for (param, _), update in zip(pairs, orthogonalized(torch.stack(updates)), strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                    param.add_(update, alpha=-group["lr"] * scale)
