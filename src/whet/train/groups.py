"""Which optimiser trains a parameter, at what share of the rate and with what decay: by its role in the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from whet.anatomy import anatomy
from whet.train.muon import Muon

VECTOR, LINEAR, EMBEDDING, HEAD, OTHER = ROLES = ("vector", "linear", "embedding", "head", "other")
# Second moments are of few steps where a model is trained from nothing; this epsilon is far below any gradient's.
_BETAS, _EPSILON = (0.9, 0.98), 1e-10


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained of a model: its parameters that ask for a gradient, by name, in its order."""
    return {name: param for name, param in model.named_parameters() if param.requires_grad}


def roles_of(model: nn.Module) -> dict[str, str]:
    """The role of every parameter of a model of transformers, by its name: `linear` (a matrix of a block), `embedding`
    (of a tied head too), `head`, `vector` (norms and biases), `other`. Raises UsageError for a model without a row."""
    shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
    parts = anatomy(model.config.to_dict(), shapes, type(model).__name__)  # type: ignore[union-attr, operator]
    found = {linear.parameter: LINEAR for linear in parts.linears()}
    found[parts.embedding.parameter] = EMBEDDING
    if parts.head is not None:
        found[parts.head.parameter] = HEAD
    return {name: VECTOR if len(shape) < 2 else found.get(name, OTHER) for name, shape in shapes.items()}


def roles_by_shape(model: nn.Module) -> dict[str, str]:
    """The same of any module, with no more to go by: `vector` or `other`."""
    return {name: VECTOR if param.ndim < 2 else OTHER for name, param in model.named_parameters()}


def make_optimizers(
    model: nn.Module, roles: Mapping[str, str], shares: Mapping[str, float], muon: bool, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices of blocks (2-D ones) and AdamW for the rest.

    roles: by parameter. shares: of the schedule's rate, by role (1 where none is named). weight_decay: decoupled; none
    on vectors. Each group has its `share`.
    """
    inside: dict[float, list[Tensor]] = {}
    rest: dict[tuple[bool, float], list[Tensor]] = {}
    for name, param in trained(model).items():
        share = shares.get(roles[name], 1.0)
        if muon and roles[name] == LINEAR and param.ndim == 2:
            inside.setdefault(share, []).append(param)
        else:
            rest.setdefault((param.ndim >= 2, share), []).append(param)
    found: list[torch.optim.Optimizer] = []
    if rest:
        groups = [
            {"params": some, "share": share, "weight_decay": weight_decay if decays else 0.0}
            for (decays, share), some in rest.items()
        ]
        found.append(torch.optim.AdamW(groups, lr=0.0, betas=_BETAS, eps=_EPSILON))
    if inside:
        groups = [{"params": some, "share": share} for share, some in inside.items()]
        found.append(Muon(groups, weight_decay=weight_decay))  # type: ignore[arg-type]
    return found


def set_rates(optimizers: list[torch.optim.Optimizer], rate: float, adam_share: float) -> None:
    """Set what the groups of a step are trained at; adam_share: of the rate, for AdamW."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"] * (1.0 if isinstance(optimizer, Muon) else adam_share)
