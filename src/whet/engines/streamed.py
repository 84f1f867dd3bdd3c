"""A model whose blocks lie on disk: each is in memory only while it computes.

What is stored are the decoded weights as the opened model has them, so every result is that of the model in memory, bit
by bit; what it costs is time: each pass reads all blocks once. Files are mapped, so that one block's weights count as
memory while it computes and none afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whet.anatomy import family_of
from whet.checkpoint import disk_errors
from whet.engines.torch import TorchEngine
from whet.errors import UsageError
from whet.walk.skeleton import give_back


def stacks_of(config: Mapping[str, Any], folder: str | Path) -> tuple[str, ...]:
    """What the lists of blocks of a model are called. Raises UsageError where its family is not known."""
    family = family_of(config)
    if family is None or not family.known:
        raise UsageError(
            "{folder}: whet does not know where the blocks of this architecture are, so it cannot stream them. Leave "
            "--streamed out.",
            folder=folder,
        )
    return family.stacks


class StreamedEngine(TorchEngine):
    """An opened model with its blocks in files of `scratch`, which has to stay while it is used. `files`: by the name
    of a block. Raises UsageError where the family is not known, MachineError where the disk is full."""

    def __init__(self, opened: TorchEngine, scratch: Path) -> None:
        self.files: dict[str, Path] = {}
        model = opened.model
        for stack in stacks_of(model.config.to_dict(), opened.folder):
            for number, block in model.get_submodule(stack).named_children():
                file = scratch / f"{len(self.files)}.pt"
                with disk_errors(file):
                    torch.save({name: value.detach() for name, value in block.named_parameters()}, file)
                _free(block)
                give_back()
                block.register_forward_pre_hook(partial(_load, file, model.device))
                block.register_forward_hook(_free, always_call=True)
                self.files[f"{stack}.{number}"] = file
        super().__init__(model, opened.tokenizer, opened.folder, opened.name)
        self.own, self.scales, self.kv = opened.own, opened.scales, opened.kv

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.model.named_parameters():
            if not value.is_meta:
                yield name, value
        for block, file in self.files.items():
            for name, stored in _stored(file).items():
                yield f"{block}.{name}", stored


def _stored(file: Path) -> dict[str, Tensor]:
    return torch.load(file, mmap=True, weights_only=True)  # type: ignore[no-any-return]


def _load(file: Path, device: torch.device, block: nn.Module, *_: Any) -> None:
    for name, value in _stored(file).items():
        _put(block, name, value.to(device))


def _free(block: nn.Module, *_: Any) -> None:
    for name, value in list(block.named_parameters()):
        _put(block, name, value.to("meta"))


def _put(block: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    block.get_submodule(owner)._parameters[leaf] = nn.Parameter(value, requires_grad=False)
