"""Calibration text the original writes itself, for when none is given (LLM-QAT, Liu et al. 2023, arXiv 2305.17888).

Each sample starts from one token of the vocabulary, drawn with the seed, goes on greedily for a few tokens, so that the
start becomes a likely one, and is sampled at temperature 1 from there.
"""

from __future__ import annotations

import random
import time

import torch
from torch import Tensor

from whet.checkpoint import Checkpoint
from whet.engines.torch import open_model
from whet.errors import UsageError
from whet.events import OnEvent
from whet.recipe.memory import available_memory

_GREEDY = 4
_SHORTEST = 8
# Loading needs the weights and the largest of them once more; the cache and activations of a few sequences come on top.
_ROOM = 1.5


def check_fits(checkpoint: Checkpoint) -> None:
    """Raises UsageError asking for text where the model does not fit in memory to write any."""
    free, needs = available_memory(), int(checkpoint.nbytes * _ROOM)
    if free is not None and needs > free:
        raise UsageError(
            f"No text was given. {checkpoint.path.name} could write its own, but needs about {needs / 1e9:.1f} GB of "
            f"memory for that and {free / 1e9:.1f} GB are free. Give --text FILE (txt, jsonl, parquet or hub data) "
            "in the languages the model is used in, or --solver nearest, which needs none."
        )


def self_written(
    checkpoint: Checkpoint, count: int, window: int, seed: int, device: str, on_event: OnEvent
) -> list[Tensor]:
    """`count` windows int64 of at most `window` tokens written by the model; says beforehand how long it will take."""
    engine = open_model(checkpoint.path, device)
    chance = random.Random(seed)
    starts = [[chance.randrange(engine.vocabulary)] for _ in range(count)]
    started = time.monotonic()
    starts = [[*start, *new] for start, new in zip(starts, engine.continue_ids(starts, _GREEDY), strict=True)]
    seconds = (time.monotonic() - started) / _GREEDY * window
    message = (
        f"no text was given: the model writes {count} x {window} tokens itself, in about {seconds:.0f} s. Text of your "
        "own (--text) is better where you have it."
    )
    on_event({"event": "note", "message": message})
    rest = engine.continue_ids(starts, max(1, window - _GREEDY - 1), temperature=1.0, seed=seed)
    written = [torch.tensor([*start, *new][:window]) for start, new in zip(starts, rest, strict=True)]
    written = [sample for sample in written if len(sample) >= _SHORTEST]
    if not written:
        raise UsageError(
            f"{checkpoint.path.name} ends every text it begins within {_SHORTEST} tokens, so it cannot write its own "
            "calibration text. Give --text FILE."
        )
    return written
