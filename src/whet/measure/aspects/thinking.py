"""Worked answers step by step: what an accuracy of answers hides when a model keeps the answers and loses the process.

Both models write steps and answer greedily. A step is right where it comes to the right result, in the right order.
Faithfulness (Lanham and others, Measuring Faithfulness in Chain-of-Thought Reasoning, arXiv 2307.13702): from the right
steps up to one, and from the same with another result in the last of them, the model writes on; its answer follows its
steps where the two answers differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from whet.engines import Engine
from whet.errors import UsageError
from whet.events import OnEvent, Stage
from whet.measure.aspects.aspect import Aspect, Case, Example, Reading, Sides, found, predicts
from whet.measure.changes import change_of_ratios
from whet.measure.statistics import Floats
from whet.measure.worked import (
    Worked,
    Written,
    corrupted,
    first_difference,
    read_answer,
    read_worked,
    result_of,
    right_answer,
    right_steps,
)
from whet.messages import Message

MOST = 200  # problems, drawn with the seed
_AT_ONCE = 32
_MORE = 16  # tokens over half as many again as the right answer has


def _drawn(case: Case) -> list[Worked]:
    assert case.file is not None
    worked = read_worked(case.file)
    return Random(case.asked.seed).sample(worked, MOST) if len(worked) > MOST else worked


def _lacking(case: Case) -> Message | None:
    if (why := predicts(case)) is not None:
        return why
    if case.file is None:
        return Message("it needs worked answers: give a file of them (--worked FILE)")
    _drawn(case)
    return None


def _seconds(case: Case, each: float) -> float:
    # each is asked three times, and writes about as much as the right answer, a token at a time
    return 2 * 3 * 3 * each * sum(len(one.text.encode()) / 3 for one in _drawn(case))


def _write(engine: Engine, rows: Sequence[list[int]], rooms: Sequence[int], stage: Stage) -> list[str]:
    """What the model writes after each row of tokens, at most `rooms` of them each."""
    order = sorted(range(len(rows)), key=lambda place: (rooms[place], len(rows[place])))
    texts = [""] * len(rows)
    for first in range(0, len(order), _AT_ONCE):
        group = order[first : first + _AT_ONCE]
        room = max(rooms[place] for place in group)
        if engine.context is not None:
            room = min(room, engine.context - max(len(rows[place]) for place in group))
        if room < 1:
            raise UsageError(
                "A worked answer takes more tokens than the context of {context} of {folder}. Leave out the long ones.",
                context=engine.context,
                folder=engine.folder,
            )
        for place, ids in zip(group, engine.continue_ids([rows[i] for i in group], room), strict=True):
            texts[place] = engine.decode(ids)
        stage.step()
    return texts


def _rows(engine: Engine, worked: Sequence[Worked], begun: Sequence[str], chat: bool) -> list[list[int]]:
    """Tokens of each prompt with the beginning of an answer."""
    if not chat:
        return [engine.encode(one.prompt + text) for one, text in zip(worked, begun, strict=True)]
    opening = len(engine.encode(""))  # a bos belongs before the prompt only
    return [
        engine.encode(one.prompt, chat=True) + (engine.encode(text)[opening:] if text else [])
        for one, text in zip(worked, begun, strict=True)
    ]


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    worked, chat = _drawn(case), case.asked.chat
    rng = Random(case.asked.seed)
    begun = [corrupted(one, rng) for one in worked]
    some = [place for place, one in enumerate(begun) if one is not None]
    batches = -(-len(worked) // _AT_ONCE) + 2 * -(-len(some) // _AT_ONCE)
    stage = Stage(on_event, "thinking", 2 * batches)
    written, follows = [], []
    for engine in (sides.original, sides.lighter):
        rooms = [len(engine.encode(one.text)) * 3 // 2 + _MORE for one in worked]
        texts = _write(engine, _rows(engine, worked, [""] * len(worked), chat), rooms, stage)
        written.append([read_answer(text, one.mark) for text, one in zip(texts, worked, strict=True)])
        answers = []
        for which in (0, 1):
            prefixes = [one[which] for one in begun if one is not None]
            rows = _rows(engine, [worked[place] for place in some], prefixes, chat)
            ends = _write(engine, rows, [rooms[place] for place in some], stage)
            answers.append([read_answer(end, worked[place].mark).answer for end, place in zip(ends, some, strict=True)])
        # an answer that did not come follows nothing
        told = [float(bool(a and b) and result_of(a) != result_of(b)) for a, b in zip(*answers, strict=True)]
        follows.append(np.array(told))
    return _told(worked, written, follows, some, case.asked.examples)


def _told(
    worked: Sequence[Worked],
    written: Sequence[Sequence[Written]],
    follows: Sequence[Floats],
    some: Sequence[int],
    examples: int,
) -> dict[str, Any]:
    groups = [one.group for one in worked]
    right = [
        np.array([right_answer(w, one) for w, one in zip(side, worked, strict=True)], np.float64) for side in written
    ]
    steps = [np.array([right_steps(w, one) for w, one in zip(side, worked, strict=True)]) for side in written]
    lucky = [answers * (shares < 1) for answers, shares in zip(right, steps, strict=True)]
    ones = np.ones(len(worked))
    readings = [
        _reading("steps", [(side, ones) for side in steps], groups),
        _reading("answer", [(side, ones) for side in right], groups),
        _reading("lucky", list(zip(lucky, right, strict=True)), groups),
    ]
    if some:
        of = np.ones(len(some))
        readings.append(_reading("follows", [(side, of) for side in follows], [groups[place] for place in some]))
    notes = []
    if not steps[0].any():
        notes.append(
            Message("The original comes to none of the right steps: it does not write them, or not in this form.")
        )
        readings[0] = Reading("steps", None, original=0.0, lighter=float(steps[1].mean()))
    apart = [first_difference(first, second) for first, second in zip(*written, strict=True)]
    counts = Counter("none" if place is None else str(place) for place in apart)
    return found(
        readings,
        _examples(worked, written, right, steps, examples),
        notes,
        problems=len(worked),
        first_difference=dict(sorted(counts.items())),
    )


def _reading(figure: str, sides: Sequence[tuple[Floats, Floats]], groups: Sequence[str]) -> Reading:
    alone = [float(top.sum() / bottom.sum()) if bottom.any() else None for top, bottom in sides]
    if None in alone:
        return Reading(figure, None, original=alone[0], lighter=alone[1])
    estimate = change_of_ratios(sides[0], sides[1], groups)
    return Reading(figure, estimate.value, estimate.interval, original=alone[0], lighter=alone[1])


def _examples(
    worked: Sequence[Worked],
    written: Sequence[Sequence[Written]],
    right: Sequence[Floats],
    steps: Sequence[Floats],
    count: int,
) -> list[Example]:
    """Where the original's steps are right and the lighter's are not; first those whose answer is right even so."""
    kinds = (
        (Message("The lighter model comes to the right answer by wrong steps."), right[1] > 0),
        (Message("The lighter model's steps went wrong, and its answer with them."), right[1] == 0),
    )
    told = []
    for about, so in kinds:
        places = [place for place in range(len(worked)) if so[place] and steps[0][place] == 1 > steps[1][place]]
        for place in places[:count]:
            first, second = ("\n".join([*side[place].steps, side[place].answer]) for side in written)
            told.append(Example(about, worked[place].prompt, first, second))
    return told


THINKING = Aspect(
    "thinking",
    standard=False,
    title=Message("Thinking"),
    meaning=Message("whether it comes to its answers by right steps"),
    lacking=_lacking,
    seconds=_seconds,
    measure=_measure,
)
