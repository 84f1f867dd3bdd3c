"""Hidden states between blocks: in memory, or in a file when there are too many; float32 either way."""

from __future__ import annotations

import os
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

    def __init__(self, batches: list[Tensor], folder: Path | None = None) -> None:
        total = sum(b.numel() for b in batches)
        if folder is None or total * 4 <= SPILL:
            self.batches = [b.float().clone() for b in batches]
            return
        file = folder / "hidden.bin"
        with disk_errors(file):
            try:
                with file.open("wb") as stream:
                    # all of it now: a full disk is an error here, and the death of the process at a mapped page
                    os.posix_fallocate(stream.fileno(), 0, total * 4)
                flat = torch.from_file(str(file), shared=True, size=total, dtype=torch.float32)
            finally:
                file.unlink(missing_ok=True)
        self.batches = []
        start = 0
        for batch in batches:
            self.batches.append(flat[start : start + batch.numel()].view(batch.shape))
            self.batches[-1].copy_(batch)
            start += batch.numel()

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Tensor:
        return self.batches[index]

    def update(self, index: int, value: Tensor) -> None:
        """Replace batch `index`."""
        self.batches[index].copy_(value)
