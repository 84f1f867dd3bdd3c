"""When a lighter model is too unsure to be left alone: the doubt at which the original goes on with its answer.

Both models answer questions with known answers. For every doubt of a fixed list the answers are those that a user
would have got: the lighter model's up to where its doubt exceeded it, and the original's from there on. A flip is
harmful where such an answer is wrong and the original's own is right. Doubts are tried from the strictest on, and the
last one is taken before the upper confidence limit of harmful flips exceeds the share that was asked for ("Learn then
Test", Angelopoulos, Bates, Candès, Jordan and Lei 2022, arXiv 2110.01052: a fixed order needs no correction for how
many were tried).

Questions of one group are right or wrong together, so one of each group is asked.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from whet.checkpoint.model_files import is_finished, model_file
from whet.engines.opening import open_engine
from whet.engines.sampling import Doubt
from whet.engines.stepping import Stepper, stepper
from whet.errors import UsageError, WhetError
from whet.measure.items import LONGEST_ANSWER, Item, is_right, read_skills
from whet.measure.sides import shared_tokenizer
from whet.measure.statistics import upper_limit
from whet.messages import to_json

# fmt: off
DOUBTS = (
    0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8,
    0.9, 1.0,
)
# fmt: on
CONFIDENCE = 0.95
_TOGETHER = 16  # answers at once


@dataclass(frozen=True)
class Written:
    """An answer with the doubt before each of its tokens, the end included."""

    ids: list[int]
    doubts: list[float]

    def until(self, doubt: float) -> int | None:
        """How many tokens stand before the first whose doubt exceeds this one; None where none does."""
        return next((at for at, found in enumerate(self.doubts) if found > doubt), None)


@dataclass(frozen=True)
class Choice:
    """doubt: above which the original goes on; escalated: share of answers; harmful: how many were, of `questions`;
    limit: what the share of harmful flips does not exceed; alone: harmful flips without escalation."""

    doubt: float
    escalated: float
    harmful: int
    questions: int
    limit: float
    alone: int


def fewest(share: float) -> int:
    """Questions without which no such share can be promised, were there not one harmful flip among them."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - share))


def one_of_each(items: Sequence[Item]) -> list[Item]:
    """Questions that are answered freely, one of each group."""
    seen: set[Any] = set()
    kept = []
    for number, item in enumerate(items):
        name = number if item.group is None else item.group
        if not item.choices and name not in seen:
            seen.add(name)
            kept.append(item)
    return kept


def write(engine: Any, steps: Stepper, prompts: Sequence[Sequence[int]], room: Sequence[int]) -> list[Written]:
    """Greedy answers to the end of the line or the text, at most `room` tokens each."""
    made: list[Written] = []
    for first in range(0, len(prompts), steps.slots):
        batch = range(first, min(first + steps.slots, len(prompts)))
        doubts = {row: Doubt() for row in batch}
        group = {row: Written([], []) for row in batch}
        logits = {row: steps.read(row - first, prompts[row]) for row in batch if room[row] > 0}
        while logits:
            fed = {}
            for row, at in logits.items():
                token = int(at.argmax())
                group[row].doubts.append(doubts[row].add(at))
                if token in engine.ends:
                    continue
                group[row].ids.append(token)
                if len(group[row].ids) < room[row] and "\n" not in engine.decode([token]):
                    fed[row] = token
            rows = steps.last([(row - first, [token]) for row, token in fed.items()]) if fed else []
            logits = dict(zip(fed, rows, strict=True))
        made += [group[row] for row in batch]
        for slot in range(steps.slots):
            steps.end(slot)
    return made


def choose(original: Any, lighter: Any, items: Sequence[Item], share: float, *, chat: bool = False) -> Choice:
    """The largest doubt of the list that keeps the promise, for two opened models. Raises UsageError where there are
    too few questions, or none keeps it but escalating every answer at once."""
    items = one_of_each(items)
    if len(items) < fewest(share):
        raise UsageError(
            "{count} questions with free answers (one of each group) cannot show that harmful flips are below "
            "{share:.2%}: at least {fewest} are needed. Give more with --skills, or ask for a larger share.",
            count=len(items),
            share=share,
            fewest=fewest(share),
        )
    most = 8 + LONGEST_ANSWER + max(len(original.encode(item.prompt, chat=chat)) for item in items)
    sides = [stepper(engine, _TOGETHER, most) for engine in (original, lighter)]
    prompts = [original.encode(item.prompt, chat=chat) for item in items]
    room = [LONGEST_ANSWER] * len(items)
    theirs = write(original, sides[0], prompts, room)
    mine = write(lighter, sides[1], prompts, room)
    good = [_right(original, item, answer.ids) for item, answer in zip(items, theirs, strict=True)]
    places = {(i, at) for i, one in enumerate(mine) for doubt in DOUBTS if (at := one.until(doubt)) is not None}
    # where the lighter model began as the original did, the original ends as it did; and a wrong one harms nothing
    order = sorted((i, at) for i, at in places if good[i] and mine[i].ids[:at] != theirs[i].ids[:at])
    rests = write(
        original,
        sides[0],
        [[*prompts[i], *mine[i].ids[:at]] for i, at in order],
        [LONGEST_ANSWER - at for _, at in order],
    )
    joined = {(i, at): [*mine[i].ids[:at], *rest.ids] for (i, at), rest in zip(order, rests, strict=True)}
    right = {(i, at): good[i] for i, at in places}
    right |= {place: _right(original, items[place[0]], ids) for place, ids in joined.items()}
    alone = [_right(original, item, answer.ids) for item, answer in zip(items, mine, strict=True)]
    return _last_that_holds(mine, good, right, alone, share)


def _last_that_holds(
    mine: Sequence[Written],
    good: Sequence[bool],
    right: dict[tuple[int, int], bool],
    alone: Sequence[bool],
    share: float,
) -> Choice:
    found: Choice | None = None
    without = sum(a and not b for a, b in zip(good, alone, strict=True))
    for doubt in DOUBTS:
        at = [one.until(doubt) for one in mine]
        harmful = sum(good[i] and not (alone[i] if place is None else right[i, place]) for i, place in enumerate(at))
        limit = upper_limit(harmful, len(mine), CONFIDENCE)
        if limit > share:
            break
        escalated = sum(place is not None for place in at) / len(mine)
        found = Choice(doubt, escalated, harmful, len(mine), limit, without)
    if found is None or found.escalated > 0.95:
        raise UsageError(
            "No threshold keeps harmful flips below {share:.2%}, unless the original writes nearly every answer: "
            "alone, the lighter model has {count} in {questions} questions. Ask for a larger share, or serve a model "
            "that kept more.",
            share=share,
            count=without,
            questions=len(mine),
        )
    return found


def _right(engine: Any, item: Item, ids: Sequence[int]) -> bool:
    text = engine.decode(ids).split("\n")[0].strip()
    return is_right(text, item.answer or "", item.check)


def main() -> None:
    """`sys.argv[1]`: {"original", "lighter", "skills", "share", "device", "dtype", "threads", "trusted"}; prints the
    choice, or why there is none."""
    asked = json.loads(sys.argv[1])
    from whet.checkpoint.code import trust_remote_code

    try:
        if asked["trusted"] is not None:
            trust_remote_code(asked["trusted"])
        items = read_skills(asked["skills"])
        models = [model_file(asked[name]) for name in ("original", "lighter")]
        shared_tokenizer(*models)
        if asked["threads"] is not None:
            torch.set_num_threads(asked["threads"])
        devices = ["cpu" if is_finished(model) else asked["device"] for model in models]
        original, lighter = (open_engine(*one, asked["dtype"]) for one in zip(models, devices, strict=True))
        said: dict[str, Any] = vars(choose(original, lighter, items, asked["share"]))
    except (WhetError, OSError, RuntimeError) as error:
        said = {
            "refused": to_json(error.message if isinstance(error, WhetError) else f"{type(error).__name__}: {error}")
        }
    sys.stdout.write(json.dumps(said) + "\n")
