"""Weights that are trained as what they are rounded to: quantization-aware training of a model in memory.

A module's weight is computed anew at every pass, from latent weights that are trained, by the grid's own `decode`, so
that what was trained is what a file of its codes and scales is read as, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whet.grids import CodedGrid, Params
from whet.grids.levels import Levels, inverse
from whet.grids.straight import Straight, grouped

NAME = "whet_rounded"  # of the submodules that hold what a module's parameters are computed from
_TRAINED = ("scale", "offset")


class Rounded(nn.Module):
    """A matrix `[out, in]` on a grid, of which latent weights, scales and real zeros are trained.

    codes, params: as the grid has them, where training begins. decode: the type in which values are computed. mask:
    bool `[out, in]`, False where it stays exactly 0. frozen: codes stay, and scales alone are trained. coupled: as in
    `whet.grids.straight`. Latent weights are counted in gaps between levels, parameters as factors of what they were.
    """

    def __init__(
        self,
        grid: CodedGrid,
        codes: Tensor,
        params: Params,
        *,
        decode: torch.dtype = torch.float32,
        mask: Tensor | None = None,
        frozen: bool = False,
        coupled: bool = True,
    ) -> None:
        super().__init__()
        self.grid, self.params, self.mask, self.coupled = grid, params, mask, coupled or frozen
        self.computed, self.columns = decode, codes.shape[1]
        spans = grid.groups(self.columns)
        self.count, self.size = len(spans), spans[0][1] - spans[0][0]
        # what rows share would have to move with all of them, and powers of two are too coarse to be trained
        moved = grid.rows == 1 and grid.scale_dtype != torch.float8_e8m0fnu
        self.factors = nn.ParameterDict(
            {k: nn.Parameter(torch.ones_like(params[k].float())) for k in _TRAINED if moved and k in params}
        )
        self.start = self._bind(params)
        low, high = self.start.ends()
        self.gap = (high - low) / self.start.top
        value = (self.start.value(grouped(codes.float(), self.size)) * inverse(self.gap)).flatten(1)
        self.latent = nn.Parameter(value[:, : self.columns].contiguous(), requires_grad=not frozen)

    def weight(self) -> Tensor:
        """The matrix now, float32; gradients reach what is trained."""
        kept = self._stored()
        exact = {k: self.params[k].float() * factor for k, factor in self.factors.items()}
        # rounded to their stored type straight through
        now = self._bind({**kept, **{k: x + (kept[k].float() - x).detach() for k, x in exact.items()}})
        return Straight.apply(  # type: ignore[no-any-return, no-untyped-call]
            self.latent, now.scale, now.offset, self.gap, self.size, self.start, now, self.coupled,
            lambda codes: self._decoded(codes, kept),
        )  # fmt: skip

    @torch.no_grad()
    def rounded(self) -> tuple[Tensor, Params]:
        """Codes uint8 `[out, in]` and parameters, as they are stored now."""
        kept = self._stored()
        levels = self.start if self.coupled else self._bind(kept)
        codes = levels.codes(grouped(self.latent, self.size) * self.gap)
        return self._masked(codes, kept), kept

    @torch.no_grad()
    def _stored(self) -> Params:
        found = {k: self.grid.stored(self.params[k].float() * factor) for k, factor in self.factors.items()}
        return {**self.params, **found}

    def _masked(self, codes: Tensor, params: Params) -> Tensor:
        """Codes `[out, groups, size]` as `[out, in]`, those of zero where it is masked."""
        flat = codes.flatten(1)[:, : self.columns].to(torch.uint8)
        if self.mask is None:
            return flat
        zero = self.grid.zero_value(self.grid.spread(params, self.count))
        assert zero is not None
        every = zero.to(torch.uint8)[..., None].expand(-1, -1, self.size).flatten(1)[:, : self.columns]
        return torch.where(self.mask, flat, every)

    def _decoded(self, codes: Tensor, params: Params) -> Tensor:
        return self.grid.decode(self._masked(codes, params), params, self.computed).float()

    def _bind(self, params: Params) -> Levels:
        return self.grid.bind({k: v[..., None] for k, v in self.grid.spread(params, self.count).items()})


@dataclass(frozen=True)
class Place:
    """Where in a model a matrix is: of which parameter, which rows (all) of which expert of a stack, and whether the
    other way round."""

    parameter: str
    rows: tuple[int, int] | None = None
    expert: int | None = None
    transposed: bool = False

    def of(self, whole: Tensor) -> Tensor:
        """The matrix `[out, in]` in its parameter; a view."""
        part = whole if self.expert is None else whole[self.expert]
        part = part.t() if self.transposed else part
        return part if self.rows is None else part[self.rows[0] : self.rows[1]]

    def whole(self, shape: Sequence[int]) -> bool:
        """Whether it is a parameter of this shape by itself."""
        return self.expert is None and not self.transposed and self.rows in (None, (0, shape[0]))


class _Whole(nn.Module):
    """A parameter of a model as the matrices in it make it; what none of them covers stays as it is."""

    def __init__(self, base: Tensor, parts: Sequence[tuple[Place, Rounded]]) -> None:
        super().__init__()
        self.places = [place for place, _ in parts]
        self.base = base.to("meta") if self.places[0].whole(base.shape) else base
        self.parts = nn.ModuleList(part for _, part in parts)
        self.made = [part.weight for _, part in parts]

    def forward(self) -> Tensor:
        made = [make() for make in self.made]
        if self.places[0].whole(self.base.shape):
            return made[0]
        whole = self.base.clone()
        for place, part in zip(self.places, made, strict=True):
            place.of(whole).copy_(part)
        return whole


class Installed:
    """Rounded matrices in place of parameters of `model`, until they are taken out again. places: by address."""

    def __init__(self, model: nn.Module, rounded: Mapping[str, Rounded], places: Mapping[str, Place]) -> None:
        self.model, self.rounded = model, dict(rounded)
        self._held: list[tuple[nn.Module, str, _Whole]] = []
        self._hooks: list[Any] = []
        by_parameter: dict[str, list[str]] = {}
        for address in rounded:
            by_parameter.setdefault(places[address].parameter, []).append(address)
        for parameter, addresses in by_parameter.items():
            param = model.get_parameter(parameter)
            whole = _Whole(param.detach(), [(places[one], self.rounded[one]) for one in addresses])
            # a head that is tied to the embedding has the same
            for module in list(model.modules()):
                for leaf in [leaf for leaf, own in module._parameters.items() if own is param]:
                    self._install(module, leaf, whole)

    def taken_out(self) -> None:
        """Leave the weights as they are now as the model's parameters, which are not trained."""
        for hook in self._hooks:
            hook.remove()
        made: dict[int, nn.Parameter] = {}
        for module, leaf, whole in self._held:
            if id(whole) not in made:
                with torch.no_grad():
                    made[id(whole)] = nn.Parameter(whole(), requires_grad=False)
            delattr(module, f"{NAME}_{leaf}")
            module.__dict__.pop(leaf)
            module.register_parameter(leaf, made[id(whole)])

    def _install(self, module: nn.Module, leaf: str, whole: _Whole) -> None:
        del module._parameters[leaf]
        module.__dict__[leaf] = whole.base
        module.add_module(f"{NAME}_{leaf}", whole)

        def compute(owner: nn.Module, _: Any) -> None:
            owner.__dict__[leaf] = whole()

        self._hooks.append(module.register_forward_pre_hook(compute))
        self._held.append((module, leaf, whole))
