"""Several answers at once, a few tokens at a time, each begun and ended when it likes: what a server asks of a runtime.

Notable: sequences go through together, in PyTorch (`slots`) and in llama.cpp, so what is answered beside an answer can
change it only where two tokens are equally likely but for rounding. A model that cannot be run so is run one sequence
after the other, and so is a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from whet.engines.cached import CachedEngine
from whet.engines.llamacpp import LlamaEngine
from whet.engines.slots import SlotStepper, can_share
from whet.engines.torch import TorchEngine
from whet.errors import UsageError


class Stepper(Protocol):
    """Sequences by number, from 0 to below `slots`. lengths: tokens in each."""

    slots: int
    context: int
    lengths: list[int]

    def read(self, slot: int, ids: Sequence[int]) -> Tensor:
        """Add `ids` to a slot; logits [vocabulary] of what comes next."""

    def step(self, fed: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        """Add tokens to each of these slots; the logits [n, vocabulary] after each of them."""

    def last(self, fed: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        """As `step`, but only the logits [vocabulary] after the last token of each slot."""

    def crop(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens of a slot."""

    def end(self, slot: int) -> None:
        """Empty a slot."""

    def score(self, ids: Sequence[int], start: int) -> Tensor:
        """Logits [len(ids) - start, vocabulary] that foretell ids[start:]."""


def stepper(engine: TorchEngine | LlamaEngine | CachedEngine, slots: int, most: int) -> Stepper:
    """The stepper of an engine, for `slots` sequences of at most `most` tokens."""
    if engine.task != "causal":
        raise UsageError(
            "{folder} is no model that continues text ({task}). Name another model.",
            folder=engine.folder,
            task=engine.task,
        )
    context = min(engine.context or most, most)
    if isinstance(engine, LlamaEngine):
        return LlamaStepper(engine, slots, context)
    if isinstance(engine, CachedEngine):
        return AloneStepper(engine, slots, context)
    return SlotStepper(engine, slots, context) if can_share(engine, context) else AloneStepper(engine, slots, context)


class AloneStepper:
    """One cache a slot, as the model makes it: for models that cannot share a forward pass. Cannot go back."""

    def __init__(self, engine: TorchEngine | CachedEngine, slots: int, context: int) -> None:
        self.engine, self.slots, self.context = engine, slots, context
        self.lengths = [0] * slots
        self._caches: dict[int, Any] = {}

    def read(self, slot: int, ids: Sequence[int]) -> Tensor:
        batch = torch.tensor([list(ids)], device=self.engine.device)
        logits, self._caches[slot] = self.engine.advance(batch, self._caches.get(slot))
        self.lengths[slot] += len(ids)
        return logits[0]

    def step(self, fed: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        return [torch.stack([self.read(slot, [token]) for token in ids]) for slot, ids in fed]

    def last(self, fed: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        return [self.read(slot, ids) for slot, ids in fed]

    def crop(self, slot: int, length: int) -> None:
        if self.lengths[slot] > length:
            raise UsageError("{folder} cannot take tokens back.", folder=self.engine.folder)

    def end(self, slot: int) -> None:
        self._caches.pop(slot, None)
        self.lengths[slot] = 0

    def score(self, ids: Sequence[int], start: int) -> Tensor:
        return self.engine.logits(torch.tensor([list(ids)]))[0, start - 1 : -1]


class LlamaStepper:
    """One context with a sequence a slot, and one more to score in."""

    def __init__(self, engine: LlamaEngine, slots: int, context: int) -> None:
        self.engine, self.slots, self.context = engine, slots, context
        engine.open_slots(slots + 1, context)
        self.lengths = [0] * (slots + 1)

    def read(self, slot: int, ids: Sequence[int]) -> Tensor:
        return self.last([(slot, ids)])[0]

    def step(self, fed: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        return list(self._run(fed, last=False).split([len(ids) for _, ids in fed]))

    def last(self, fed: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        return list(self._run(fed, last=True))

    def _run(self, fed: Sequence[tuple[int, Sequence[int]]], last: bool) -> Tensor:
        told = []
        for slot, ids in fed:
            start, end = self.lengths[slot], self.lengths[slot] + len(ids)
            told += [(slot, at, token, not last or at == end - 1) for at, token in enumerate(ids, start)]
            self.lengths[slot] = end
        return self.engine.run_slots(told)

    def crop(self, slot: int, length: int) -> None:
        if self.lengths[slot] > length:
            self.engine.crop_slot(slot, length)
            self.lengths[slot] = length

    def end(self, slot: int) -> None:
        self.lengths[slot] = 0
        self.engine.crop_slot(slot, 0)

    def score(self, ids: Sequence[int], start: int) -> Tensor:
        told = [(self.slots, at, token, at >= start - 1) for at, token in enumerate(ids[:-1])]
        try:
            return self.engine.run_slots(told)
        finally:
            self.end(self.slots)
