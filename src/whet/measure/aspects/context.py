"""Long context: divergence by position, what is found again at a distance, and whether the cache computes the same.

Windows are made of the text up to the model's limit. A needle is a piece of text that comes twice: at some depth, and
at the end, where its continuation is to be predicted; what having seen it before is worth, in nats a token, is what a
model finds again. It needs no questions, and works in any language. The cache: a window is read in pieces into the
cache, and the logits after each are compared with those of one pass without a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whet.checkpoint import rows_between
from whet.engines import Engine
from whet.events import OnEvent, Stage
from whet.measure.aspects.aspect import Aspect, Case, Reading, Sides, found
from whet.measure.divergence import CHUNK, divergence
from whet.measure.sides import context_of
from whet.measure.statistics import clustered_mean, clustered_ratio, skewed_ratio
from whet.messages import Message

LONGEST, WINDOWS = 2048, 8  # tokens of a window, at most; how many
SHORTEST = 64
NEEDLE, SHOWN = 24, 8  # tokens of a needle, and how many of it stand at the end before what is to be predicted
DEPTHS = (0.05, 0.5, 0.9)  # where the needle is: shares of what is before its second half
PARTS = 4  # of a window, by position
PIECES, STEPS = 6, 4  # a window is read into the cache in so many pieces, and the last tokens one by one


class Long(NamedTuple):
    """Windows [length] of the text as the lighter model numbers tokens, and what is left of it."""

    windows: list[Tensor]
    rest: Tensor


def length_of(case: Case) -> int:
    """Tokens of a window: the models' limit, at most 2048, and so many that the text fills eight."""
    limits = [n for n in map(context_of, (case.asked.original, case.asked.lighter)) if n is not None]
    return min([LONGEST, sum(map(len, case.given.windows)) // (WINDOWS + 1), *limits])


def long_windows(windows: Sequence[Tensor], length: int) -> Long:
    """The text in windows of `length`, one document behind the other."""
    whole = torch.cat(list(windows))
    return Long(list(whole[: WINDOWS * length].split(length)), whole[WINDOWS * length :])


def by_position(sides: Sides, long: Long, rows: Sequence[int] | None, batch_tokens: int) -> list[Reading]:
    """KL of each part of the windows, by the position of the token."""
    scores = divergence(sides.original, sides.lighter, long.windows, batch_tokens, rows=rows)
    length = len(long.windows[0])
    places = np.concatenate([np.arange(1, len(window)) for window in long.windows])
    readings = []
    for part in range(PARTS):
        first, last = part * length // PARTS, (part + 1) * length // PARTS
        mine = (places >= first) & (places < last)
        kl = scores.kl[mine].astype(np.float64)
        estimate = skewed_ratio(kl, np.ones(len(kl)), scores.window[mine])
        readings.append(Reading.estimated("kl", estimate, of=f"{first}–{last}", exact=not kl.any()))
    return readings


def needles(sides: Sides, long: Long, rows: Sequence[int] | None) -> list[Reading]:
    """For each depth, the share of what the original finds again that the lighter does."""
    length = len(long.windows[0])
    readings = []
    for depth in DEPTHS:
        gains = []
        for engine, numbers in ((sides.original, rows), (sides.lighter, None)):
            told = [_surprise(engine, _with_needle(long, depth, seen, length), numbers) for seen in (False, True)]
            gains.append(told[0] - told[1])
        places = np.arange(len(gains[0]))
        worth = clustered_mean(gains[0], places)
        of = f"{depth:.0%}"
        if worth.interval is None or worth.interval[0] <= 0:
            readings.append(Reading("needle", None, of=of))
        else:
            kept = clustered_ratio(gains[1], gains[0], places)
            exact = bool(np.array_equal(gains[0], gains[1]))
            readings.append(Reading.estimated("needle", kept, of=of, exact=exact))
    return readings


def _with_needle(long: Long, depth: float, seen: bool, length: int) -> list[Tensor]:
    """Windows that end with a needle, each of the next window's text, which stands at `depth` too where it is `seen`;
    where it is not, other text as long."""
    made = []
    for number, window in enumerate(long.windows):
        after = long.windows[(number + 1) % len(long.windows)]
        middle = len(after) // 2
        needle, other = after[middle : middle + NEEDLE], after[middle - NEEDLE : middle]
        filler = window[: length - 2 * NEEDLE]
        at = int(depth * len(filler))
        made.append(torch.cat([filler[:at], needle if seen else other, filler[at:], needle]))
    return made


def _surprise(engine: Engine, windows: Sequence[Tensor], rows: Sequence[int] | None) -> NDArray[np.float64]:
    """Mean -log p of what is to be predicted of the needle at the end of each window, in nats."""
    batch = torch.stack(list(windows))
    wanted = list(range(batch.shape[1] - NEEDLE + SHOWN, batch.shape[1]))
    read = batch if rows is None else torch.tensor(list(rows))[batch]
    logits = _at(engine, read, [place - 1 for place in wanted])
    shares = torch.log_softmax(logits, -1).gather(-1, read[:, wanted, None].to(logits.device))[..., 0]
    found: NDArray[np.float64] = -shares.double().mean(-1).cpu().numpy()
    return found


def _at(engine: Engine, batch: Tensor, places: Sequence[int]) -> Tensor:
    """Logits [b, places, V] in float32, of one pass without a cache."""
    kept, position = [], 0
    for logits in engine.logit_chunks(batch, max(1, CHUNK // engine.vocabulary)):
        mine = [place - position for place in places if position <= place < position + logits.shape[1]]
        kept.append(logits[:, mine].float())
        position += logits.shape[1]
    return torch.cat(kept, 1)


def cache_apart(engine: Any, window: Tensor) -> float:
    """The largest KL(without || with a cache) of the next token, over the places after which a window is read on."""
    length = len(window)
    cuts = sorted({length * piece // PIECES for piece in range(1, PIECES)} | set(range(length - STEPS, length + 1)))
    cache, position, given = None, 0, []
    for cut in cuts:
        logits, cache = engine.advance(window[None, position:cut].to(engine.device), cache)
        given.append(logits.float())
        position = cut
    cached = torch.log_softmax(torch.stack(given, 1), -1)
    alone = torch.log_softmax(_at(engine, window[None], [cut - 1 for cut in cuts]).to(cached.device), -1)
    return max(0.0, float((alone.exp() * (alone - cached)).sum(-1).max()))


def _cache(sides: Sides, long: Long, rows: Sequence[int] | None) -> Reading:
    """How much further the lighter's cache is from computing without one than the original's."""
    window = long.windows[0]
    theirs = window if rows is None else torch.tensor(list(rows))[window]
    first, second = cache_apart(sides.original, theirs), cache_apart(sides.lighter, window)
    return Reading("cache", max(0.0, second - first), original=first, lighter=second, exact=True)


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    rows = rows_between(case.asked.original, case.asked.lighter)
    length = length_of(case)
    long = long_windows(case.given.windows, length)
    stage = Stage(on_event, "context", 3)
    readings = by_position(sides, long, rows, case.asked.batch_tokens)
    stage.step()
    readings += needles(sides, long, rows)
    stage.step()
    notes = []
    if all(hasattr(side, "advance") for side in sides[:2]):
        readings.append(_cache(sides, long, rows))
    else:
        notes.append(Message("llama.cpp always computes with its cache, so there is nothing to compare that with."))
    stage.step()
    limit = min((n for n in map(context_of, (case.asked.original, case.asked.lighter)) if n is not None), default=None)
    if limit is None or length < limit:
        notes.append(Message("Positions up to {length} were measured.", length=length))
    return found(readings, notes=notes, length=length)


def _lacking(case: Case) -> Message | None:
    if case.task != "causal":
        return Message("it is told of models that continue text, and these do not")
    if length_of(case) < SHORTEST:
        return Message(
            "windows of {least} tokens need a text of {tokens}, or the context is shorter",
            least=SHORTEST,
            tokens=SHORTEST * (WINDOWS + 1),
        )
    return None


CONTEXT = Aspect(
    "context",
    standard=False,
    title=Message("Long context"),
    meaning=Message(
        "divergence by position, what is found again at a distance, and whether the cache computes the same"
    ),
    lacking=_lacking,
    seconds=lambda case, each: 2 * each * length_of(case) * (WINDOWS * (1 + 2 * len(DEPTHS)) + 2),
    measure=_measure,
)
