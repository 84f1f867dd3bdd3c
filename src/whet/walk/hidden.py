"""Hidden states between blocks: in memory, or in a file when there are too many; float32 either way."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from whet.checkpoint import disk_errors

SPILL = 2**31


class HiddenStates:
    """One float32 tensor `[b, L, hidden]` per batch, updated in place block after block.

    With `folder`, more than `SPILL` bytes go to a file there that the operating system pages in and out (it is deleted
    as soon as it is open, so nothing is left behind by a crash). The values are the same either way.
    """

    def __init__(self, batches: Sequence[Tensor], folder: Path | None = None) -> None:
        self.device = batches[0].device if batches else torch.device("cpu")
        self.batches = self._room([tuple(b.shape) for b in batches], folder)
        for place, batch in zip(self.batches, batches, strict=True):
            place.copy_(batch)

    @classmethod
    def empty(cls, shapes: Sequence[tuple[int, ...]], folder: Path | None = None, device: str = "cpu") -> HiddenStates:
        """Room for tensors of `shapes`, not yet filled; only what is written to takes memory."""
        states = cls([])
        states.device = torch.device(device)
        states.batches = states._room(shapes, folder)
        return states

    def _room(self, shapes: Sequence[tuple[int, ...]], folder: Path | None) -> list[Tensor]:
        sizes = [math.prod(shape) for shape in shapes]
        total = sum(sizes)
        if folder is None or total * 4 <= SPILL:
            return [torch.empty(shape, dtype=torch.float32, device=self.device) for shape in shapes]
        file = folder / "hidden.bin"
        with disk_errors(file):
            try:
                with file.open("wb") as stream:
                    # all of it now: a full disk is an error here, and the death of the process at a mapped page
                    os.posix_fallocate(stream.fileno(), 0, total * 4)
                flat = torch.from_file(str(file), shared=True, size=total, dtype=torch.float32)
            finally:
                file.unlink(missing_ok=True)
        return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Tensor:
        return self.batches[index].to(self.device)

    def drop(self, index: int) -> None:
        """Let batch `index` go, for good."""
        self.batches[index] = torch.empty(0)

    def update(self, index: int, value: Tensor) -> None:
        """Replace batch `index`."""
        self.batches[index].copy_(value)
