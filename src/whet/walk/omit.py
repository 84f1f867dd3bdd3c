"""Streams in which one more block is left out, all followed in one pass.

At its own block a stream leaves the one in which nothing more is left out, and goes on through the blocks behind; so a
candidate costs no more than those, and every block is brought in once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy
from whet.checkpoint import Checkpoint
from whet.walk.hidden import HiddenStates
from whet.walk.skeleton import Call, Skeleton

BASE = -1  # the stream in which nothing more is left out


class Omissions:
    """Sends batches (int64 `[b, L]`, no padding) through the blocks of a model without some of them.

    Everything is computed in float32. folder: where hidden states are spilled when there are too many.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        anatomy: Anatomy,
        batches: Sequence[Tensor],
        device: str,
        folder: Path | None = None,
    ) -> None:
        self.skeleton, self.anatomy, self.batches = Skeleton(checkpoint, anatomy, device), anatomy, batches
        self.folder = folder
        self._calls: dict[tuple[int, ...], list[Call]] = {}
        self._entered: list[Tensor] = []
        with self.skeleton.embedding(checkpoint.read(anatomy.embedding.parameter)):
            for batch in batches:
                hidden, calls = self.skeleton.enter(batch)
                self._calls.setdefault(tuple(batch.shape), calls)
                self._entered.append(hidden)

    def go(
        self, gone: Sequence[int], candidates: Sequence[int], on_block: Callable[[], None] = lambda: None
    ) -> Mapping[int, Callable[[int], Tensor]]:
        """Final hidden states without the blocks `gone`, and besides without each of `candidates`.

        Returns by candidate (BASE: none) a function from a batch's number to what the head reads, `[b, L, hidden]`.
        """
        anatomy, skeleton = self.anatomy, self.skeleton
        names = [BASE, *candidates]
        width = anatomy.embedding.shape[1]
        shapes = [(*batch.shape, width) for _ in names for batch in self.batches]
        states = HiddenStates.empty(shapes, self.folder, skeleton.device)

        def place(name: int, number: int) -> int:
            return names.index(name) * len(self.batches) + number

        for number, hidden in enumerate(self._entered):
            states.update(place(BASE, number), hidden)
        left = [BASE]
        with torch.no_grad():
            for index in range(len(anatomy.blocks)):
                if index in gone:
                    continue
                module = skeleton.load_block(index)
                if index in candidates:
                    for number in range(len(self.batches)):
                        states.update(place(index, number), states[place(BASE, number)])
                for name in left:
                    for number, batch in enumerate(self.batches):
                        call = self._calls[tuple(batch.shape)][index]
                        at = place(name, number)
                        states.update(at, skeleton.run(module, states[at], call, torch.float32))
                left += [index] if index in candidates else []
                skeleton.free_block(index)
                on_block()
            norm = skeleton.load_norm()
        return {name: _end(norm, states, [place(name, n) for n in range(len(self.batches))]) for name in names}

    def likeness(self, on_block: Callable[[], None] = lambda: None) -> list[float]:
        """How much what each block gives is like what it is given: the cosine of the two, mean over tokens."""
        found = []
        states = HiddenStates(self._entered, self.folder)
        with torch.no_grad():
            for index in range(len(self.anatomy.blocks)):
                module = self.skeleton.load_block(index)
                total, count = 0.0, 0
                for number, batch in enumerate(self.batches):
                    call = self._calls[tuple(batch.shape)][index]
                    before = states[number].clone()
                    states.update(number, self.skeleton.run(module, before, call, torch.float32))
                    alike = nn.functional.cosine_similarity(before, states[number], dim=-1)
                    total, count = total + alike.double().sum().item(), count + alike.numel()
                found.append(total / count)
                self.skeleton.free_block(index)
                on_block()
        return found


def _end(norm: nn.Module, states: HiddenStates, places: Sequence[int]) -> Callable[[int], Tensor]:
    def final(number: int) -> Tensor:
        with torch.no_grad():
            return norm(states[places[number]])

    return final
