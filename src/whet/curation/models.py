"""What models say of documents: how likely the original finds them, and where the lighter one differs from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whet.curation.store import Store
from whet.engines.opening import open_engine
from whet.errors import UsageError
from whet.events import OnEvent, Stage
from whet.measure.divergence import divergence
from whet.measure.likelihood import surprise
from whet.measure.sides import shared_tokenizer

MODELS = "documents"  # the stage
WINDOW = 512  # tokens of a document that are read, from its begin
_LETTERS = 8  # that a token has at most, about
_STEP = 16  # lengths are multiples of it where they are more, so that documents are read together
_LEAST = 8  # tokens of a document of which anything is told


class Judges:
    """The original, and the lighter model if one is given, opened. Raises UsageError unless both go on with text and
    have one tokenizer."""

    def __init__(self, original: str | Path, lighter: str | Path | None, device: str) -> None:
        if lighter is not None:
            shared_tokenizer(original, lighter)
        self.original = open_engine(original, device)
        self.lighter = None if lighter is None else open_engine(lighter, device)
        for engine in [self.original] if self.lighter is None else [self.original, self.lighter]:
            if engine.task != "causal":
                raise UsageError(
                    "{folder} does not go on with a text, so it has no perplexity of it. Give a model that does.",
                    folder=engine.folder,
                )

    def read(self, store: Store, on_event: OnEvent) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of every document that stays the mean surprise of the original and the mean KL(original || lighter), in nats
        a token, [documents]; not a number of what is shorter than 8 tokens, and of the KL without a lighter model."""
        likely, apart = (np.full(len(store), np.nan, np.float32) for _ in range(2))
        numbers = store.staying
        stage = Stage(on_event, MODELS, max(1, len(numbers)))
        done = 0
        for some, texts in store.texts(numbers):
            found = [(number, self._window(text)) for number, text in zip(some.tolist(), texts, strict=True)]
            mine = np.array([number for number, window in found if window is not None], np.int64)
            windows = [window for _, window in found if window is not None]
            if windows and self.lighter is not None:
                scores = divergence(self.original, self.lighter, windows)
                counts = np.bincount(scores.window)
                apart[mine] = np.bincount(scores.window, scores.kl) / counts
                likely[mine] = np.bincount(scores.window, scores.nll_original) / counts
            elif windows:
                likely[mine] = surprise(self.original, windows)
            done += len(some)
            stage.reach(done)
        # figures that differ in the last bits between machines decide alike
        return np.round(likely, 4), np.round(apart, 5)

    def _window(self, text: str) -> Tensor | None:
        most = min(WINDOW, *(engine.context for engine in (self.original, self.lighter) if engine and engine.context))
        ids = self.original.encode(text[: _LETTERS * most])[:most]
        if len(ids) < _LEAST:
            return None
        return torch.tensor(ids[: len(ids) - len(ids) % _STEP] if len(ids) > _STEP else ids, dtype=torch.int64)


def outside(store: Store, likely: NDArray[np.float32], band: tuple[float, float]) -> tuple[NDArray, NDArray]:
    """Documents under and over the quantiles `band` of the surprise of their language, of those that stay."""
    low, high = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    staying = store.staying[np.isfinite(likely[store.staying])]
    for language in store.languages.values():
        mine = staying[store.language[staying] == language]
        if len(mine):
            # as ranks are: the band of 5 % – 95 % leaves out 5 of 100 at either end
            ends = np.quantile(likely[mine], band, method="inverted_cdf")
            low.append(mine[likely[mine] < ends[0]] if band[0] else mine[:0])
            high.append(mine[likely[mine] > ends[1]])
    return np.sort(np.concatenate(low)), np.sort(np.concatenate(high))


def hardest(store: Store, apart: NDArray[np.float32], share: float) -> NDArray[np.int64]:
    """That share of the documents of each language that stay, those where the models are farthest apart; none where
    they say the same."""
    found = [np.empty(0, np.int64)]
    staying = store.staying[np.isfinite(apart[store.staying])]
    for language in store.languages.values():
        mine = staying[store.language[staying] == language]
        most = round(share * len(mine))
        mine = mine[apart[mine] > 0]
        order = mine[np.lexsort((mine, -apart[mine]))]
        found.append(order[:most])
    return np.sort(np.concatenate(found))
