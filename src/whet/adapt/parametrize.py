"""An adapter on a model that is being trained: tensors that ask for gradients beside each of its modules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whet.adapt.kinds import Kind
from whet.adapt.targets import role_of
from whet.anatomy import Module
from whet.checkpoint import Factors, adapted, rows_of

NAME = "whet_adapter"  # of the submodule that holds a module's tensors
SHARED = "shared"  # role of what several modules have in common, for the learning rate


class Parametrization(nn.Module):
    """What is trained of one module. b `[out, r]`, a `[r, in]` or `[r, groups]`; magnitude `[out]` or None.

    group: columns that have one number of each row of `a` in common, 1 for each its own. taken: what is taken away
    again of what it begins as (`b0`, `a0`), as the base keeps its weights.
    """

    def __init__(
        self,
        b: Tensor,
        a: nn.Parameter,
        scale: float,
        *,
        columns: int,
        group: int = 1,
        magnitude: Tensor | None = None,
        taken: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.a, self.b, self.scale, self.columns, self.group = a, nn.Parameter(b), scale, columns, group
        self.magnitude = None if magnitude is None else nn.Parameter(magnitude)
        none = (b[:, :0], b.new_zeros(0, columns))
        for name, value in zip(("b0", "a0"), taken or none, strict=True):
            self.register_buffer(name, value, persistent=False)

    def factors(self) -> Factors:
        """What it makes of the weight now; gradients reach its parameters."""
        a = self.a if self.group == 1 else self.a.repeat_interleave(self.group, 1)[:, : self.columns]
        b0, a0 = self.get_buffer("b0"), self.get_buffer("a0")
        if not len(a0):
            return Factors(self.b, a, self.scale, self.magnitude)
        return Factors(torch.cat([self.b, -b0], 1), torch.cat([a, a0]), self.scale)

    def weight(self, w: Tensor) -> Tensor:
        """The weight `[out, in]` of a module whose own is `w`."""
        return self.factors().weight(w)

    def stored(self) -> Factors:
        """It as it is written: of no graph, in memory of its own on the CPU."""
        now = self.factors()
        own = [None if one is None else one.detach().cpu().clone() for one in (now.b, now.a, now.magnitude)]
        assert own[0] is not None and own[1] is not None
        return Factors(own[0], own[1], now.scale, own[2])


def installed(
    model: nn.Module,
    modules: Sequence[Module],
    kind: Kind,
    rank: int,
    alpha: float,
    seed: int,
    *,
    groups: Mapping[str, int] | None = None,
    lost: Mapping[str, Factors] | None = None,
) -> dict[str, Parametrization]:
    """Put an adapter beside `modules` of `model`, whose own parameters are trained no more; it is part of the model
    from now on. Returns the tensors of each by its name.

    groups: of kinds that have them, columns by module. lost: what factors begin as instead, where the base has lost
    something that they can give back (LoftQ, EoRA).
    """
    for param in model.parameters():
        param.requires_grad_(False)
    shared: dict[tuple[str, tuple[int, ...]], nn.Parameter] = {}
    places = dict(model.named_modules())
    found = {}
    for number, one in enumerate(modules):
        module = places[one.name]
        draws = torch.Generator().manual_seed(seed * 1_000_003 + number)
        w = rows_of(module).detach()
        made = _made(kind, w, rank, alpha, draws, (groups or {}).get(one.name, 1), (lost or {}).get(one.name))
        if kind.shared:
            made.a = shared.setdefault((role_of(one), tuple(made.a.shape)), made.a)
        module.add_module(NAME, made.to(w.device))
        module.register_forward_hook(_hook)
        found[one.name] = made
    return found


def shares_of(found: Mapping[str, Parametrization], model: nn.Module) -> tuple[dict[str, str], dict[str, float]]:
    """Roles of trained parameters by name, and the share of the rate that those of each have: what L modules have in
    common gets gradients from all of them, and 1/√L of the rate (Song et al. 2024, arXiv 2406.10785)."""
    counts: dict[int, int] = {}
    for one in found.values():
        counts[id(one.a)] = counts.get(id(one.a), 0) + 1
    roles = {name: "linear" for name, _ in model.named_parameters()}
    shares: dict[str, float] = {}
    for name, param in model.named_parameters():
        if (count := counts.get(id(param), 1)) > 1:
            roles[name] = f"{SHARED} by {count}"
            shares[roles[name]] = 1 / math.sqrt(count)
    return roles, shares


def _made(
    kind: Kind, w: Tensor, rank: int, alpha: float, draws: torch.Generator, group: int, lost: Factors | None
) -> Parametrization:
    """The tensors of one module of weight `w`."""
    columns, scale = w.shape[1], kind.scale(alpha, rank)
    plain = w.float().cpu()
    b, a = kind.start(plain, rank, draws) if lost is None else (lost.b.float(), lost.a.float())
    root = 1 / math.sqrt(scale)
    taken = None
    if lost is not None or kind.inside:
        b, a = b * root, a * root  # so that scale · B A is what it is to begin as
    if kind.inside and lost is None:
        taken = (b.clone(), a.clone())
    if kind.grouped:
        a = a[:, ::group].contiguous()
    length = torch.linalg.norm(plain + scale * (b @ a), dim=1) if kind.sized else None
    return Parametrization(
        b, nn.Parameter(a), scale, columns=columns, group=group if kind.grouped else 1, magnitude=length, taken=taken
    )


def _hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
    return adapted(module, args[0], out, getattr(module, NAME).factors())
