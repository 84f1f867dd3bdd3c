"""What every expert adds to what its block gives, over a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from whet.pruning.experts import Routed
from whet.walk import BlockStep
from whet.walk.skeleton import hooked


class Routing:
    """Visits every block of a walk, which stays as it is; `blocks` are those with experts."""

    def __init__(self, on_block: Callable[[], None] = lambda: None) -> None:
        self.blocks: dict[int, Routed] = {}
        self.on_block = on_block

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Listens to the experts of a block."""
        stack = next((x for x in step.linears if x.held.expert is not None), None)
        if stack is not None:
            module = step.module.get_submodule(stack.held.parameter.removeprefix(step.prefix).rpartition(".")[0])
            found = Routed.none(1 + max(x.held.expert for x in step.linears if x.held.expert is not None))
            with hooked([module.register_forward_pre_hook(_listen(found), with_kwargs=True)]):
                for batch in range(len(step.walk.lighter)):
                    step.walk.run(step, step.walk.lighter[batch], batch)
            self.blocks[step.index] = found
        self.on_block()
        return {}


def _listen(found: Routed) -> Callable[..., None]:
    """A hook before stacked experts, which transformers gives hidden states, and each token's experts and gates."""

    def hook(module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        hidden, chosen, gates = (*args, *kwargs.values())[:3]
        gates = gates.double() / gates.double().sum(-1, keepdim=True).clamp_min(1e-12)
        for expert in range(len(found.tokens)):
            token, place = (chosen == expert).nonzero(as_tuple=True)
            if not len(token):
                continue
            gate, up = torch.nn.functional.linear(hidden[token], module.gate_up_proj[expert]).chunk(2, dim=-1)
            out = torch.nn.functional.linear(module.act_fn(gate) * up, module.down_proj[expert])
            found.tokens[expert] += len(token)
            found.given[expert] += (gates[token, place] * out.double().norm(dim=-1)).sum().cpu()

    return hook
