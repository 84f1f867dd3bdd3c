"""Experts that go are merged into those that stay: what is found about them on a walk, and the merged weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import Linear
from whet.apply.experts import Routing
from whet.checkpoint import Checkpoint, read_header, read_tensor, write_tensors
from whet.pruning.merging import aligned, groups, shares, similarity
from whet.walk import BlockStep
from whet.walk.skeleton import hooked

FILE = "merges.safetensors"
SAMPLED = 256  # tokens on which every expert is asked


class Merging(Routing):
    """Visits every block of a walk as `Routing` does. Of each with experts, `found` has by name, after the block's
    number: `into` `[experts]` (the expert that each is merged into, itself where it stays, -1 where none has room),
    `share` `[experts]` (how much it counts there), `order` `[experts, neurons]` (its neurons in the other's order)."""

    def __init__(self, keep: int, importance: str) -> None:
        super().__init__()
        self.keep, self.importance = keep, importance
        self.found: dict[str, Tensor] = {}

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Listens to the experts of a block, then compares them on some of the tokens."""
        super().visit(step)
        if step.index in self.blocks:
            module, hidden = _sampled(step)
            outputs, middles = _asked(module, hidden)
            gates = torch.softmax(hidden.float() @ _router(step, len(outputs)).float().t(), -1).t()
            self._merge(step.index, module, similarity(outputs, gates).cpu(), middles)
        return {}

    def _merge(self, index: int, module: Any, alike: Tensor, middles: Tensor) -> None:
        routed, count = self.blocks[index], len(alike)
        kept, worth = routed.best(self.importance, self.keep), routed.scores(self.importance).tolist()
        into = torch.tensor([one if one in kept else -1 for one in range(count)])
        share = torch.zeros(count, dtype=torch.float64)
        order = torch.arange(middles.shape[2]).repeat(count, 1)
        for mine, others in groups(alike, kept).items():
            every = [mine, *others]
            into[others] = mine
            share[every] = torch.tensor(shares([worth[one] for one in every]), dtype=torch.float64)
            described = {one: _described(module, middles, one) for one in every}
            for one in others:
                order[one] = aligned(described[mine], described[one])
        self.found |= {f"{index}.into": into, f"{index}.share": share, f"{index}.order": order}

    def write(self, folder: Path) -> None:
        """Keep what was found in the folder of a run."""
        write_tensors(folder / FILE, self.found)


def _sampled(step: BlockStep) -> tuple[Any, Tensor]:
    """The module of a block's experts, and what some tokens `[tokens, hidden]` give them."""
    stack = next(x for x in step.linears if x.held.expert is not None)
    module = step.module.get_submodule(stack.held.parameter.removeprefix(step.prefix).rpartition(".")[0])
    heard: list[Tensor] = []

    def hear(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        heard.append((*args, *kwargs.values())[0])

    with hooked([module.register_forward_pre_hook(hear, with_kwargs=True)]):
        step.walk.run(step, step.walk.lighter[0], 0)
    hidden = heard[0].reshape(-1, heard[0].shape[-1])
    return module, hidden[:: max(1, len(hidden) // SAMPLED)][:SAMPLED]


def _asked(module: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """What every expert gives `[experts, tokens, hidden]`, and its neurons `[experts, tokens, neurons]`."""
    outputs, middles = [], []
    for up, down in zip(module.gate_up_proj, module.down_proj, strict=True):
        gate, other = nn.functional.linear(hidden, up).chunk(2, dim=-1)
        middles.append((module.act_fn(gate) * other).detach())
        outputs.append(nn.functional.linear(middles[-1], down).detach())
    return torch.stack(outputs).float(), torch.stack(middles).float()


def _router(step: BlockStep, experts: int) -> Tensor:
    """The router's weights `[experts, hidden]`."""
    kept = step.walk.skeleton.anatomy.family.kept
    every = {f"{module}.weight" for module in kept}
    return next(w for name, w in step.module.named_parameters() if name in every and len(w) == experts).detach()


def _described(module: Any, middles: Tensor, expert: int) -> list[Tensor]:
    """What describes an expert's neurons: what they give, and their weights, on the machine's memory."""
    rows = module.gate_up_proj[expert].detach().chunk(2)
    weights = torch.cat([*rows, module.down_proj[expert].detach().t()], 1)
    return [middles[expert].t().cpu(), weights.cpu()]


def merged(folder: Path, checkpoint: Checkpoint, linears: Sequence[Linear], index: int) -> dict[str, Tensor]:
    """By address the weights `[out, in]`, float32, of the experts of block `index` that took others in. linears: of
    the block. folder: of the run, which keeps what was found."""
    stored = read_header(folder / FILE)
    if f"{index}.into" not in stored:
        return {}
    into, share, order = (read_tensor(stored[f"{index}.{name}"]) for name in ("into", "share", "order"))
    tensors = {name: checkpoint.read(name) for name in {x.parameter for x in linears if x.held.expert is not None}}
    found: dict[str, Tensor] = {}
    by_place = {(x.role, x.held.expert): x for x in linears if x.held.expert is not None}
    for (role, expert), linear in by_place.items():
        every = (into == expert).nonzero().flatten().tolist()
        if len(every) < 2:
            continue
        total = torch.zeros(linear.shape)
        for one in every:
            other = by_place[role, one]
            w = other.view(tensors[other.parameter]).float()
            total += share[one].item() * (w[:, order[one]] if role.endswith("down") else w[order[one]])
        found[linear.address] = total
    return found


def told(folder: Path) -> dict[str, dict[str, list[int]]]:
    """By block and expert that stays those that are merged into it, as JSON. folder: as for `merged`."""
    by_block: dict[str, dict[str, list[int]]] = {}
    for name, info in read_header(folder / FILE).items():
        index, _, what = name.partition(".")
        if what == "into":
            numbers = read_tensor(info).tolist()
            mine = {one: [o for o, to in enumerate(numbers) if to == one != o] for one in sorted(set(numbers) - {-1})}
            by_block[index] = {str(one): others for one, others in mine.items() if others}
    return by_block
