"""Lighter parts in the original, each alone, all of them followed in one pass through the blocks.

At its own block a swap leaves the original's stream with hidden states of its own; from there on both go through the
original's blocks. Every block is brought in once, and memory is that of a block and of every swap's hidden states.
(Measuring swaps one after another would run all blocks before a swap again and again.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy, Linear
from whet.checkpoint import Checkpoint
from whet.walk.hidden import HiddenStates
from whet.walk.skeleton import Call, Skeleton

ORIGINAL = ""  # the name of the stream in which nothing is swapped


class Swaps:
    """Hidden states of the original and of every swap, after the last block once `go` is over.

    batches: int64 `[b, L]`, no padding. swaps: by name, the linears of one block that are lighter together, or the
    embedding alone. Everything is computed in float32.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        anatomy: Anatomy,
        batches: Sequence[Tensor],
        swaps: Mapping[str, Sequence[Linear]],
        device: str,
    ) -> None:
        self.skeleton = Skeleton(checkpoint, anatomy, device)
        self.checkpoint, self.anatomy = checkpoint, anatomy
        self.batches, self.swaps = batches, swaps
        self.names = [ORIGINAL, *swaps]
        self._calls: dict[tuple[int, ...], list[Call]] = {}
        self._norm: nn.Module = nn.Identity()  # brought in once every stream is at its end
        width = anatomy.embedding.shape[1]
        shapes = [(*batch.shape, width) for _ in self.names for batch in batches]
        self.states = HiddenStates.empty(shapes, None, device)

    def go(
        self,
        lighter: Callable[[int], Mapping[str, Mapping[str, Tensor]]],
        embedding: Tensor | None = None,
        on_block: Callable[[], None] = lambda: None,
    ) -> None:
        """Send everything through the blocks.

        lighter: of a block by swap the weights `[out, in]` by address, float32, of its linears (swaps may change the
        same ones). embedding: the lighter table, where it is among the swaps. on_block: called after each block.
        """
        anatomy, skeleton = self.anatomy, self.skeleton
        with torch.no_grad():
            self._enter(ORIGINAL, self.checkpoint.read(anatomy.embedding.parameter))
            gone = [ORIGINAL]  # streams that are under way
            if embedding is not None:
                self._enter(anatomy.embedding.address, embedding)
                gone.append(anatomy.embedding.address)
            for index, linears in enumerate(anatomy.blocks):
                module = skeleton.load_block(index)
                here = {linear.address for linear in linears}
                leaving = [name for name, mine in self.swaps.items() if mine[0].address in here]
                weights = lighter(index) if leaving else {}
                for name in leaving:
                    with _swapped(module, anatomy.block_prefix(index), self.swaps[name], weights[name]):
                        self._step(module, index, ORIGINAL, name)
                for name in gone:
                    self._step(module, index, name, name)
                gone += leaving
                skeleton.free_block(index)
                on_block()
            self._norm = skeleton.load_norm()

    def final(self, name: str, number: int, row: int) -> Tensor:
        """What the head reads of a row of batch `number` with swap `name` (ORIGINAL: none), `[L, hidden]`."""
        with torch.no_grad():
            return self._norm(self.states[self._place(name, number)][row])

    def _enter(self, name: str, table: Tensor) -> None:
        with self.skeleton.embedding(table):
            for number, batch in enumerate(self.batches):
                hidden, arguments = self.skeleton.enter(batch)
                self._calls.setdefault(tuple(batch.shape), arguments)
                self.states.update(self._place(name, number), hidden)

    def _step(self, module: nn.Module, index: int, before: str, after: str) -> None:
        """Block `index` on the stream `before`; what comes out is where the stream `after` stands."""
        for number, batch in enumerate(self.batches):
            call = self._calls[tuple(batch.shape)][index]
            hidden = self.skeleton.run(module, self.states[self._place(before, number)], call, torch.float32)
            self.states.update(self._place(after, number), hidden)

    def _place(self, name: str, number: int) -> int:
        return self.names.index(name) * len(self.batches) + number


@contextmanager
def _swapped(
    module: nn.Module, prefix: str, linears: Sequence[Linear], weights: Mapping[str, Tensor]
) -> Iterator[None]:
    """The block with the lighter weights of `linears`; the original's are back afterwards."""
    views = [x.held.of(module.get_parameter(x.held.parameter.removeprefix(prefix)).data) for x in linears]
    kept = [view.clone() for view in views]
    for linear, view in zip(linears, views, strict=True):
        view.copy_(weights[linear.address])
    try:
        yield
    finally:
        for view, before in zip(views, kept, strict=True):
            view.copy_(before)
