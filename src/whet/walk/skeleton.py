"""A model on the meta device whose parts are brought in one at a time.

transformers builds the arguments of every block (masks, rotary tables) in its own forward; they are captured once per
batch shape with the blocks stubbed out, so that blocks can be run alone afterwards with exactly what they would have
been given. All computing is in float32, whatever the weights are stored in.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy
from whet.checkpoint import Checkpoint, empty_model

Call = tuple[tuple[Any, ...], dict[str, Any]]


def give_back() -> None:
    """Hands freed memory back to the system, where the C library is glibc, which else keeps what lies between tensors
    that live on: 2 GB after a few blocks of a model of 1.1 B parameters walked in reverse."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class Skeleton:
    """The model of `checkpoint` without its weights; `device` is where parts are brought to."""

    def __init__(self, checkpoint: Checkpoint, anatomy: Anatomy, device: str) -> None:
        self.checkpoint, self.anatomy, self.device = checkpoint, anatomy, device
        self.model = empty_model(checkpoint, torch.float32).eval()
        self.model.requires_grad_(False)
        self.blocks: nn.ModuleList = self.model.get_submodule(anatomy.family.blocks)  # type: ignore[assignment]
        for module in self.model.modules():
            # rotary frequencies and the like are in no file: they are computed from the config
            names = [n for n, b in module._buffers.items() if b is not None and b.is_meta]
            for name in names:
                module._buffers[name] = torch.empty_like(module._buffers[name], device=device)  # type: ignore[arg-type]
            if names:
                self.model._init_weights(module)  # type: ignore[no-untyped-call]

    def load_block(self, index: int) -> nn.Module:
        """Block `index` with the original's weights, in float32 on the device."""
        prefix = self.anatomy.block_prefix(index)
        state = {n.removeprefix(prefix): self.read(n) for n in self.anatomy.block_tensors[index]}
        block = self.blocks[index]
        block.load_state_dict(state, strict=True, assign=True)
        return block

    def free_block(self, index: int) -> None:
        """Give the memory of block `index` back."""
        self.blocks[index].to("meta")
        give_back()

    def load_norm(self) -> nn.Module:
        """The norm after the last block."""
        norm = self.model.get_submodule(self.anatomy.family.norm)
        prefix = self.anatomy.family.norm + "."
        names = [n for n in self.anatomy.other_tensors if n.startswith(prefix)]
        norm.load_state_dict({n.removeprefix(prefix): self.read(n) for n in names}, strict=True, assign=True)
        return norm

    def read(self, name: str) -> Tensor:
        """A stored tensor in float32 on the device, in memory of its own."""
        return self.checkpoint.read(name).to(self.device, torch.float32)

    @contextlib.contextmanager
    def embedding(self, table: Tensor) -> Iterator[None]:
        """The embedding holds `table [vocabulary, hidden]` in any type; what comes out of it is float32."""
        module = self.model.get_submodule(self.anatomy.family.embedding)
        module.weight = nn.Parameter(table.to(self.device), requires_grad=False)  # type: ignore[assignment]
        hook = module.register_forward_hook(lambda _module, _args, out: out.float())
        try:
            yield
        finally:
            hook.remove()
            module.to("meta")

    def enter(self, tokens: Tensor) -> tuple[Tensor, list[Call]]:
        """What reaches the first block for `tokens [b, L]`, and the other arguments of every block."""
        calls: list[Call] = [((), {})] * len(self.blocks)
        first: list[Tensor] = []

        def record(index: int, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
            if index == 0:
                first.append(hidden)
            calls[index] = (args, kwargs)
            return hidden

        norm = self.model.get_submodule(self.anatomy.family.norm)
        with torch.no_grad(), _stub([*self.blocks], record), _stub([norm], lambda _i, hidden, _a, _k: hidden):
            self.model.base_model(input_ids=tokens.to(self.device), use_cache=False)
        return first[0], calls


@contextlib.contextmanager
def _stub(modules: list[nn.Module], replacement: Callable[..., Tensor]) -> Iterator[None]:
    for i, module in enumerate(modules):
        module.forward = lambda hidden, *a, _i=i, **k: replacement(_i, hidden, a, k)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in modules:
            del module.forward


@contextlib.contextmanager
def replaced(block: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """`block` with other values of some parameters (by name inside the block), the old ones put back afterwards."""
    old = {name: block.get_parameter(name).data for name in weights}
    for name, value in weights.items():
        block.get_parameter(name).data = value
    try:
        yield
    finally:
        for name, value in old.items():
            block.get_parameter(name).data = value
