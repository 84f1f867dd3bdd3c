"""Long context: a needle is found by what looks back that far, positions are told apart, a broken cache is caught."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from whet.engines.torch import TorchEngine
from whet.measure.aspects.aspect import Sides
from whet.measure.aspects.context import by_position, cache_apart, long_windows, needles

LENGTH = 128


class Copier:
    """Says what came after the last time that the same two tokens were seen, up to `reach` tokens back."""

    name, folder, vocabulary, context = "copier", "copier", 64, None

    def __init__(self, reach: int) -> None:
        self.reach = reach

    def logit_chunks(self, batch: Tensor, at_once: int) -> Iterator[Tensor]:
        logits = torch.zeros(*batch.shape, self.vocabulary)
        for row, tokens in enumerate(batch.tolist()):
            for place in range(1, len(tokens)):
                for back in range(1, min(self.reach, place - 1) + 1):
                    if tokens[place - back - 1 : place - back + 1] == tokens[place - 1 : place + 1]:
                        logits[row, place, tokens[place - back + 1]] = 9.0
                        break
        yield logits


def long() -> Any:
    torch.manual_seed(0)
    return long_windows([torch.randint(0, 64, (1200,))], LENGTH)


def test_a_needle_is_found_as_far_as_a_model_looks_back() -> None:
    far, near = Copier(1000), Copier(40)
    deep, middle, late = needles(Sides(far, near, {}), long(), None)  # type: ignore[arg-type]
    assert deep.value == pytest.approx(0, abs=0.1) and middle.value == pytest.approx(0, abs=0.1)
    assert late.value == pytest.approx(1) and late.of == "90%"
    same = needles(Sides(far, far, {}), long(), None)  # type: ignore[arg-type]
    assert all(read.value == 1 and read.exact for read in same)


def test_a_needle_that_the_original_does_not_find_is_not_judged(original, lighter) -> None:
    assert all(read.value is None for read in needles(Sides(original, lighter, {}), long(), None))


def test_divergence_is_told_by_position() -> None:
    first, *_, last = by_position(Sides(Copier(1000), Copier(16), {}), repeated(), None, 4096)  # type: ignore[arg-type]
    assert first.of == "0–32" and first.value < last.value and last.of == "96–128"


def repeated() -> Any:
    torch.manual_seed(0)
    return long_windows([torch.randint(0, 64, (64,)).repeat(20)], LENGTH)


class Forgets(TorchEngine):
    """An engine whose cache loses the keys of what is more than `past` tokens old."""

    past = 32

    def advance(self, ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        logits, cache = super().advance(ids, cache)
        for layer in cache.layers:
            layer.keys = layer.keys.clone()
            layer.keys[:, :, : -self.past] = 0
        return logits, cache


def test_a_cache_that_forgets_is_caught(original) -> None:
    window = torch.randint(2, 258, (LENGTH,), generator=torch.Generator().manual_seed(0))
    assert cache_apart(original, window) < 1e-6
    assert cache_apart(Forgets(original.model, original.tokenizer, "forgets"), window) > 0.05
