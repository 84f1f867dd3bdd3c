"""The walk: the only code that goes block by block.

Memory is a block or two, the second moments of one block, and hidden states. Two streams run side by side: the lighter
one, whose inputs the solvers see (so that later blocks answer for what earlier ones lost), and the original one on
windows kept for verifying, which tells how far the lighter has drifted on text that solved nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from whet.anatomy import Anatomy, Linear
from whet.checkpoint import Checkpoint
from whet.walk.caches import RoundedCache
from whet.walk.hidden import HiddenStates
from whet.walk.inputs import RoundedInputs
from whet.walk.moments import OTHERS, HeardEnough, SecondMoments
from whet.walk.skeleton import Call, Skeleton, hooked, placed


@dataclass
class BlockStep:
    """One block while the walk stands at it: its module with the original's weights, its linears, and both streams."""

    index: int
    prefix: str
    module: nn.Module
    linears: list[Linear]
    walk: Walk

    def second_moments(
        self, batches: Sequence[int] | None = None, drifts: bool = False, ranges: bool = False
    ) -> SecondMoments:
        """H of every input of this block's linears, on the lighter stream with the block itself still original.

        batches: numbers of those to take it from, the solving ones unless given. drifts: of how far each input is from
        the original's too (`SecondMoments.drift`), which takes a walk that follows it, and is asked for before any
        `target`. ranges: the largest inputs too. Where tokens are few, unless `batches` are given, the verifying ones
        tell how far they are believed.
        """
        found = self.walk.skeleton.anatomy.family.found
        moments = SecondMoments(self.linears, self.prefix, ranges, products=found)
        for batch in range(self.walk.solving) if batches is None else batches:
            if drifts:
                with moments.listening_before(self.module):
                    self.walk.advance(self, batch)
            with moments.listening(self.module):
                hidden = self.walk.lighter[batch]
                with contextlib.suppress(HeardEnough):
                    self.walk.run(self, hidden, batch)
                moments.tokens += hidden.shape[0] * hidden.shape[1]
        if batches is None and moments.few:
            for batch in self.walk.others:
                with moments.listening_aside(self.module), contextlib.suppress(HeardEnough):
                    self.walk.run(self, self.walk.lighter[batch], batch)
        moments.settle()
        return moments

    def weight(self, linear: Linear) -> Tensor:
        """The original weights `[out, in]` of `linear`, float32."""
        return linear.held.of(self.module.get_parameter(linear.held.parameter.removeprefix(self.prefix)).data)

    def forward(self, weights: Mapping[str, Tensor], batch: int) -> Tensor:
        """What the block gives `[b, L, hidden]` for the lighter stream's batch, with other weights of its linears, by
        address; gradients flow into them."""
        parameters = placed(self.linears, weights, self.module, self.prefix)
        return self.walk.run(self, self.walk.lighter[batch], batch, parameters)

    def forward_original(self, weights: Mapping[str, Tensor], batch: int) -> Tensor:
        """The same for the original stream's solving batch, of a walk that follows it, before any `target` of it."""
        parameters = placed(self.linears, weights, self.module, self.prefix)
        return self.walk.run_original(self, batch, parameters)

    def target(self, batch: int) -> Tensor:
        """What the original block gives `[b, L, hidden]` for the original stream's batch; of a walk that follows it on
        the solving ones, after which the verifying ones come."""
        self.walk.advance(self, batch)
        return self.walk.original[batch]


class Visitor(Protocol):
    """What is done at each block. Returns the weights the lighter block has, by address; what is left out stays. None:
    the lighter model does not have the block."""

    def visit(self, step: BlockStep) -> Mapping[str, Tensor] | None: ...


@dataclass
class Stand:
    """What one stream's blocks are given beside hidden states: by shape of a batch what the first block of the stack
    `made` for the others, and by batch what the stack before it `ends` with, and what stood for it in the capture."""

    made: dict[tuple[int, ...], dict[int, Any]] = field(default_factory=dict)
    ends: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def instead(self, shape: tuple[int, ...], batch: int) -> dict[int, Any]:
        """Captured arguments, by identity, and what takes their place."""
        found = dict(self.made.get(shape, {}))
        if batch in self.ends:
            stood, end = self.ends[batch]
            found[id(stood)] = end
        return found


class Walk:
    """Streams of batches (int64 `[b, L]`, no padding) through the blocks of `checkpoint`.

    solve: batches the second moments are taken from. verify: batches that only flow, in both streams. original,
    lighter: embedding tables `[vocabulary, hidden]`. compute: type that products inside a block are computed in; hidden
    states and norms are float32 whatever it is. folder: where hidden states are spilled when there are too many.
    follow: whether the original stream takes the solving batches along too, for visitors that ask for `target`.
    inputs, cache: how the lighter stream's linears round what they read, and its attentions keys and values, where they
    do.
    After `go`, `drift[i]` is the relative squared error of the lighter hidden states after block i on `verify`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        anatomy: Anatomy,
        solve: Sequence[Tensor],
        verify: Sequence[Tensor],
        original: Tensor,
        lighter: Tensor,
        device: str,
        folder: Path | None = None,
        compute: torch.dtype = torch.float32,
        follow: bool = False,
        inputs: RoundedInputs | None = None,
        cache: RoundedCache | None = None,
    ) -> None:
        self.inputs = inputs or RoundedInputs({})
        self.cache = cache or RoundedCache()
        self.skeleton = Skeleton(checkpoint, anatomy, device)
        self.solving = len(solve)
        self.followed = len(solve) if follow else 0  # of the solving batches, how many the original stream has
        self.compute = compute
        self.drift: list[float] = []
        self._calls: dict[tuple[int, ...], list[Call]] = {}
        self._shapes = [tuple(batch.shape) for batch in (*solve, *verify)]
        self._entered: dict[int, list[Tensor]] = {}
        self._ends: dict[tuple[int, ...], Tensor] = {}
        self._stands = {"original": Stand(), "lighter": Stand()}
        self._stream = self._stands["lighter"]
        self._passed = -1  # the solving batch of the original stream that went through this block last
        self._ahead: set[int] = set()  # blocks that the original stream went through before their turn
        with self.skeleton.embedding(original):
            self.original = HiddenStates(
                [self._enter(batch) for batch in (*(solve if follow else ()), *verify)], folder
            )
        with self.skeleton.embedding(lighter):
            self.lighter = HiddenStates([self._enter(batch) for batch in (*solve, *verify)], folder)

    def go(self, visitor: Visitor) -> None:
        """Visit every block in order."""
        anatomy = self.skeleton.anatomy
        with torch.no_grad():
            for index, linears in enumerate(anatomy.blocks):
                if index in self._ahead:
                    self.drift.append(self._drift())
                    continue
                if index and index in self.skeleton.starts:
                    self._next_stack(index)
                module = self.skeleton.load_block(index)
                step = BlockStep(index, anatomy.block_prefix(index), module, linears, self)
                handles = self.inputs.listening(module, linears, step.prefix, self._at_lighter)
                handles += self.cache.listening(module, index, self._at_lighter)
                with hooked(handles):
                    self._pass(step, visitor)
                self.drift.append(self._drift())
                self.skeleton.free_block(index)

    def _at_lighter(self) -> bool:
        return self._stream is self._stands["lighter"]

    def _pass(self, step: BlockStep, visitor: Visitor) -> None:
        """Both streams through a block, which `visitor` makes lighter in between."""
        self._passed = -1
        for number in range(self.followed, len(self.original)):
            self._follow(step, number)
        weights = visitor.visit(step)
        self.advance(step, self.followed - 1)  # those that nobody asked for
        if weights is None:
            return
        # into the block itself, which is given back right after
        for linear in step.linears:
            if linear.address in weights:
                step.weight(linear).copy_(weights[linear.address])
        del weights
        for batch in range(len(self.lighter)):
            self.lighter.update(batch, self.run(step, self.lighter[batch], batch))

    @property
    def sizes(self) -> list[int]:
        """Tokens of each solving batch."""
        return [math.prod(shape) for shape in self._shapes[: self.solving]]

    @property
    def others(self) -> Sequence[int]:
        """Numbers of verifying batches of about `OTHERS` tokens together, evenly spaced: they go by length."""
        sizes = [math.prod(shape) for shape in self._shapes[self.solving :]]
        step = max(1, sum(sizes) // OTHERS)
        return range(self.solving + min(step // 2, len(sizes) - 1), len(self.lighter), step) if sizes else ()

    def run(
        self, step: BlockStep, hidden: Tensor, batch: int, parameters: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The block's output `[b, L, hidden]` for one batch, with other `parameters` in place of its own."""
        shape = self._shapes[batch]
        args, kwargs = self._calls[shape][step.index]
        instead = self._stream.instead(shape, batch)
        args = tuple(instead.get(id(value), value) for value in args)
        kwargs = {name: instead.get(id(value), value) for name, value in kwargs.items()}
        out = self.skeleton.returned(step.module, hidden, (args, kwargs), self.compute, parameters)
        if isinstance(out, Tensor):
            return out
        if self.skeleton.handed is not None and step.index in self.skeleton.starts:
            self._stream.made[shape] = dict(zip(map(id, self.skeleton.handed), out[1:], strict=True))
        return out[0]

    def advance(self, step: BlockStep, batch: int) -> None:
        """The original stream's solving batches up to `batch` through the block, those that are not yet."""
        with torch.no_grad():
            for number in range(self._passed + 1, min(batch + 1, self.followed)):
                self._follow(step, number)
                self._passed = number

    def pass_ahead(self, index: int) -> None:
        """The original stream goes through block `index` before its turn, the whole of it; the lighter model does not
        have the block. The blocks before it must have been passed."""
        module = self.skeleton.load_block(index)
        anatomy = self.skeleton.anatomy
        step = BlockStep(index, anatomy.block_prefix(index), module, anatomy.blocks[index], self)
        with torch.no_grad():
            for number in range(len(self.original)):
                self._follow(step, number)
        self.skeleton.free_block(index)
        self._ahead.add(index)

    def _follow(self, step: BlockStep, number: int) -> None:
        """The batch that the original stream holds as `number` through the block, which is the original's."""
        self.original.update(number, self.run_original(step, number))

    def run_original(self, step: BlockStep, number: int, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """What the block makes of the batch that the original stream holds as `number`, where it stands now."""
        self._stream = self._stands["original"]
        out = self.run(step, self.original[number], self._batch(number), parameters)
        self._stream = self._stands["lighter"]
        return out

    def final(self) -> Iterator[Tensor]:
        """Lighter hidden states of each solving batch after the final norm: what the head reads."""
        norm = self.skeleton.load_norm()
        for batch in range(self.solving):
            with torch.no_grad():  # not around the yield: whoever asks would go on in it
                hidden = norm(self.lighter[batch])
            yield hidden

    def pairs(self, batches: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Original and lighter hidden states after the final norm of batches that both streams have; `batches` are the
        lighter one's numbers."""
        norm = self.skeleton.load_norm()
        for batch in batches:
            with torch.no_grad():
                states = norm(self.original[batch + self.followed - self.solving]), norm(self.lighter[batch])
            yield states

    def verified(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Original and lighter hidden states of each verifying batch after the final norm."""
        yield from self.pairs([self._batch(number) for number in range(self.followed, len(self.original))])

    def _batch(self, number: int) -> int:
        """The batch that the original stream holds as `number`: it may hold the verifying ones alone."""
        return number + self.solving - self.followed

    def _enter(self, batch: Tensor) -> Tensor:
        hidden, calls = self.skeleton.enter(batch)
        shape = tuple(batch.shape)
        self._calls.setdefault(shape, calls)
        for index in self.skeleton.starts[1:]:
            self._entered.setdefault(index, []).append(self.skeleton.entered[index])
            # the decoder is given the encoder's end, which in the capture was what it had been given itself
            self._ends.setdefault(shape, hidden)
        return hidden

    def _next_stack(self, index: int) -> None:
        """The streams go on in the stack that begins with block `index`; where they were is what it reads beside."""
        norm = self.skeleton.stack_norm(index)
        for name, states, first in (("original", self.original, 0), ("lighter", self.lighter, len(self.original))):
            stand = self._stands[name]
            stand.made.clear()
            for number in range(len(states)):
                batch = self._batch(number) if name == "original" else number
                stand.ends[batch] = (self._ends[self._shapes[batch]], norm(states[number]))
                states.update(number, self._entered[index][first + number])

    def _drift(self) -> float:
        error = norm = 0.0
        for number in range(self.followed, len(self.original)):
            difference = self.lighter[self._batch(number)] - self.original[number]
            error += difference.double().square().sum().item()
            norm += self.original[number].double().square().sum().item()
        return error / norm if norm else 0.0


class Untouched:
    """A visitor that leaves every block as it is."""

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Nothing is replaced."""
        return {}
