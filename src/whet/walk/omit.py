"""Streams in which one block more is changed or left out, all followed in one pass.

At its own block a stream leaves the one in which nothing more is changed, and goes on through the blocks behind; so a
candidate costs no more than those, and every block is brought in once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy, Linear
from whet.checkpoint import Checkpoint
from whet.walk.hidden import HiddenStates
from whet.walk.skeleton import Call, Skeleton, placed

BASE = -1  # the stream in which nothing more is changed


@dataclass(frozen=True)
class BlockView:
    """A block with the original's weights, and the stream in which nothing more is changed as it stands before it.

    given: by a batch's number what the block is given, `[b, L, hidden]`. run: what it gives for that, with other
    weights of its linears by address.
    """

    index: int
    prefix: str
    module: nn.Module
    linears: list[Linear]
    batches: int
    given: Callable[[int], Tensor]
    run: Callable[[Tensor, int, Mapping[str, Tensor]], Tensor]


# The weights of a block's linears, by address, in a candidate's stream (BASE: in the one they all leave); None where
# that goes on without the block.
Change = Callable[[BlockView, Hashable], Mapping[str, Tensor] | None]


def left_out(view: BlockView, name: Hashable) -> Mapping[str, Tensor] | None:
    """Candidates that are blocks are left out."""
    return None if name == view.index else {}


class Omissions:
    """Sends batches (int64 `[b, L]`, no padding) through the blocks of a model, without some of them or with others.

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
        self,
        gone: Sequence[int],
        candidates: Mapping[Hashable, int],
        on_block: Callable[[], None] = lambda: None,
        change: Change = left_out,
    ) -> Mapping[Hashable, Callable[[int], Tensor]]:
        """Final hidden states without the blocks `gone`, and besides with each of `candidates` at its block.

        Returns by candidate (BASE: none) a function from a batch's number to what the head reads, `[b, L, hidden]`.
        """
        anatomy, skeleton = self.anatomy, self.skeleton
        names = [BASE, *candidates]
        width = anatomy.embedding.shape[1]
        shapes = [(*batch.shape, width) for _ in names for batch in self.batches]
        states = HiddenStates.empty(shapes, self.folder, skeleton.device)

        places = {name: number * len(self.batches) for number, name in enumerate(names)}
        for number, hidden in enumerate(self._entered):
            states.update(places[BASE] + number, hidden)
        left: list[Hashable] = [BASE]
        with torch.no_grad():
            for index in range(len(anatomy.blocks)):
                if index in gone:
                    continue
                view = self._view(index, states)
                mine = [name for name, block in candidates.items() if block == index]
                for name in mine:
                    weights = change(view, name)
                    for number in range(len(self.batches)):
                        given = view.given(number)
                        states.update(
                            places[name] + number, given if weights is None else view.run(given, number, weights)
                        )
                weights = change(view, BASE)
                for name in left:
                    for number in range(len(self.batches)):
                        at = places[name] + number
                        if weights is not None:
                            states.update(at, view.run(states[at], number, weights))
                left += mine
                skeleton.free_block(index)
                on_block()
            norm = skeleton.load_norm()
        return {name: _end(norm, states, range(at, at + len(self.batches))) for name, at in places.items()}

    def _view(self, index: int, states: HiddenStates) -> BlockView:
        """Block `index`, brought in. The first of `states` are those of the stream that all others leave."""
        anatomy, skeleton = self.anatomy, self.skeleton
        module, prefix, linears = skeleton.load_block(index), anatomy.block_prefix(index), anatomy.blocks[index]

        def run(hidden: Tensor, number: int, weights: Mapping[str, Tensor]) -> Tensor:
            call = self._calls[tuple(self.batches[number].shape)][index]
            return skeleton.run(module, hidden, call, torch.float32, placed(linears, weights, module, prefix))

        return BlockView(index, prefix, module, linears, len(self.batches), lambda number: states[number].clone(), run)

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
