"""A causal model in two halves: what makes hidden states of tokens, and what makes logits of hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy, anatomy
from whet.errors import UsageError

_CLOSE = 1e-3  # of the largest logit; two ways to compute in half types differ by less than that


@dataclass(frozen=True)
class Halves:
    """A model of transformers; `parts` are those of its parameters as it holds them. factor, bound: what its logits are
    multiplied by, and what they are kept below, smoothly (None: nothing)."""

    model: Any
    parts: Anatomy
    factor: float
    bound: float | None

    @classmethod
    def of(cls, model: Any) -> Halves:
        """The halves of a model. Raises UsageError where they do not give what the model gives."""
        shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
        name = type(model).__name__
        parts = anatomy(model.config.to_dict(), shapes, name)
        config, family = model.config.get_text_config(), parts.family
        factor, bound = family.logit_factor, None
        if family.logit_scale:
            entry, power = family.logit_scale
            factor *= float(getattr(config, entry)) ** power
        if family.softcap:
            bound = getattr(config, family.softcap, None) or None
        halves = cls(model, parts, factor, bound)
        probe = torch.arange(4, device=model.device)[None]
        with torch.no_grad():
            whole = model(input_ids=probe, use_cache=False).logits.float()
            found = halves.logits(halves.states(probe).last_hidden_state).float()
        if not (whole - found).abs().max() <= _CLOSE * whole.abs().max().clamp_min(1.0):
            raise UsageError(
                "{name}: the model does something with its logits that whet does not know, so what it predicts cannot "
                "be compared part by part. Please report it.",
                name=name,
            )
        return halves

    def states(self, ids: Tensor, every: bool = False, weights: Tensor | None = None) -> Any:
        """Hidden states of `ids [rows, positions]`: `last_hidden_state`, and of `every` block `hidden_states`. weights:
        of positions; only several teachers go by them (`Panel`)."""
        return self.model.base_model(input_ids=ids, use_cache=False, output_hidden_states=every)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[..., vocabulary]` of final states `[..., hidden]`."""
        made: Tensor = self.model.get_output_embeddings()(hidden)
        if self.factor != 1.0:
            made = made * self.factor
        return made if self.bound is None else torch.tanh(made / self.bound) * self.bound

    @property
    def vocabulary(self) -> int:
        """Rows of the head, padding among them."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return self.parts.embedding.shape[1]


class Heard:
    """What the linears of roles q, k and v of a model's last block give, while it is listened to."""

    def __init__(self, halves: Halves) -> None:
        self.places: dict[str, tuple[nn.Module, tuple[int, int] | None]] = {}
        for linear in halves.parts.blocks[-1]:
            if linear.role in ("q", "k", "v"):
                held = linear.held
                module = halves.model.get_submodule(held.parameter.removesuffix(".weight"))
                self.places[linear.role] = (module, held.rows)
        self.found: dict[str, Tensor] = {}

    def width(self, role: str) -> int:
        """Channels of what a role gives."""
        module, rows = self.places[role]
        return rows[1] - rows[0] if rows else int(module.weight.shape[0])  # type: ignore[operator, union-attr, index]

    def __enter__(self) -> dict[str, Tensor]:
        self.found = {}
        self.hooks = [
            module.register_forward_hook(self._keeping(role, rows)) for role, (module, rows) in self.places.items()
        ]
        return self.found

    def __exit__(self, *_: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    def _keeping(self, role: str, rows: tuple[int, int] | None) -> Any:
        def keep(module: nn.Module, given: Any, made: Tensor) -> None:
            self.found.setdefault(role, made if rows is None else made[..., rows[0] : rows[1]])

        return keep
