"""Several answers at once, a token at a time, each begun and ended when it likes: what a server asks of a runtime.

Notable: in PyTorch every sequence has a cache of its own and is computed alone, so that an answer does not depend on
what is answered beside it: another process that goes on with it gives the same tokens; so it is in runtimes of graphs.
In llama.cpp sequences go through together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from whet.engines.cached import CachedEngine
from whet.engines.llamacpp import LlamaEngine
from whet.engines.torch import TorchEngine
from whet.errors import UsageError


class Stepper(Protocol):
    """Sequences by number, from 0 to below `slots`."""

    slots: int
    context: int

    def read(self, slot: int, ids: Sequence[int]) -> Tensor:
        """Add `ids` to a slot; logits [vocabulary] of what comes next."""

    def step(self, fed: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Add a token to each of these slots; the logits after each."""

    def end(self, slot: int) -> None:
        """Empty a slot."""

    def score(self, ids: Sequence[int], start: int) -> Tensor:
        """Logits [len(ids) - start, vocabulary] that foretell ids[start:]."""


def stepper(engine: TorchEngine | LlamaEngine | CachedEngine, slots: int, most: int) -> Stepper:
    """The stepper of an engine, for `slots` sequences of at most `most` tokens."""
    if engine.task != "causal":
        raise UsageError(
            "{folder} is no model that continues text ({task}), and whet serve serves those. Name another model.",
            folder=engine.folder,
            task=engine.task,
        )
    context = min(engine.context or most, most)
    if isinstance(engine, LlamaEngine):
        return LlamaStepper(engine, slots, context)
    return TorchStepper(engine, slots, context)


class TorchStepper:
    """One cache a slot."""

    def __init__(self, engine: TorchEngine | CachedEngine, slots: int, context: int) -> None:
        self.engine, self.slots, self.context = engine, slots, context
        self._caches: dict[int, Any] = {}

    def _fed(self, slot: int, ids: Sequence[int]) -> Tensor:
        batch = torch.tensor([list(ids)], device=self.engine.device)
        logits, self._caches[slot] = self.engine.advance(batch, self._caches.get(slot))
        return logits[0]

    def read(self, slot: int, ids: Sequence[int]) -> Tensor:
        return self._fed(slot, ids)

    def step(self, fed: Sequence[tuple[int, int]]) -> list[Tensor]:
        return [self._fed(slot, [token]) for slot, token in fed]

    def end(self, slot: int) -> None:
        self._caches.pop(slot, None)

    def score(self, ids: Sequence[int], start: int) -> Tensor:
        return self.engine.logits(torch.tensor([list(ids)]))[0, start - 1 : -1]


class LlamaStepper:
    """One context with a sequence a slot, and one more to score in."""

    def __init__(self, engine: LlamaEngine, slots: int, context: int) -> None:
        self.engine, self.slots, self.context = engine, slots, context
        engine.open_slots(slots + 1, context)
        self._lengths = [0] * (slots + 1)

    def read(self, slot: int, ids: Sequence[int]) -> Tensor:
        start = self._lengths[slot]
        self._lengths[slot] += len(ids)
        last = self._lengths[slot] - 1
        return self.engine.run_slots([(slot, at, token, at == last) for at, token in enumerate(ids, start)])[0]

    def step(self, fed: Sequence[tuple[int, int]]) -> list[Tensor]:
        told = []
        for slot, token in fed:
            told.append((slot, self._lengths[slot], token, True))
            self._lengths[slot] += 1
        return list(self.engine.run_slots(told))

    def end(self, slot: int) -> None:
        self._lengths[slot] = 0
        self.engine.empty_slot(slot)

    def score(self, ids: Sequence[int], start: int) -> Tensor:
        told = [(self.slots, at, token, at >= start - 1) for at, token in enumerate(ids[:-1])]
        try:
            return self.engine.run_slots(told)
        finally:
            self.end(self.slots)
