"""Whether a model is fit for exact knowledge, such as law or medicine: what it lost of what the original knows.

Of the questions that the original answers rightly, the share that the lighter model does not, a question counting the
more the rarer its answer is: rounding takes what was seen rarely first, and an average over common facts hides it. What
is gained elsewhere makes up for nothing here. The verdict is "fit" only where the whole interval is under 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from whet.events import OnEvent
from whet.measure.aspects.aspect import Aspect, Case, Example, Reading, Sides, found
from whet.measure.items import Item
from whet.measure.statistics import independent_items, wilson
from whet.messages import Message

MOST = 0.01  # of what the original knows may be lost
SHOWN = 5


def counts(items: Sequence[Item], documents: Sequence[str]) -> list[int]:
    """How often each item's answer was seen: its own `count`, else the number of documents that hold it."""
    texts = list(dict.fromkeys(documents))
    answers = [_answer(item) for item in items]
    seen = {answer: sum(answer in text for text in texts) for answer in set(answers)}
    return [seen[answer] if item.count is None else item.count for item, answer in zip(items, answers, strict=True)]


def weight(count: int) -> float:
    """What an answer that was seen so often counts: 1 for one never seen, a half at 1, a fifth at 15."""
    return 1 / (1 + math.log2(1 + count))


def lost_share(
    weights: Sequence[float], lost: Sequence[bool], groups: Sequence[int]
) -> tuple[float, tuple[float, float]]:
    """The weighted share that was lost, with its 95 % score interval, which is not empty where nothing was lost.

    As of so many independent items as tell as much: (sum of weights)² / sum of their squares (Kish, Survey Sampling,
    1965, 11.7), fewer where items of a group are lost together.
    """
    total = sum(weights)
    share = min(1.0, sum(w for w, gone in zip(weights, lost, strict=True) if gone) / total)
    many = len(set(groups)) > 1
    effective = total**2 / sum(w * w for w in weights)
    effective *= (independent_items([int(gone) for gone in lost], groups) if many else 1) / len(lost)
    return share, wilson(share * effective, effective)


def _answer(item: Item) -> str:
    return (item.choices[item.label] if item.choices else item.answer or "").strip()


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    first, second = sides.outcomes
    known = [i for i, outcome in enumerate(first) if outcome.right]
    if not known:
        note = Message("The original answers no question rightly, so there is nothing to lose.")
        return found([Reading("lost", None)], notes=[note], fit=None)
    seen = counts([case.items[i] for i in known], case.given.documents)
    marks: list[Any] = [(i,) if case.items[i].group is None else case.items[i].group for i in known]
    numbers = {mark: number for number, mark in enumerate(dict.fromkeys(marks))}
    gone = [not second[i].right for i in known]
    value, ends = lost_share([weight(one) for one in seen], gone, [numbers[mark] for mark in marks])
    fit = ends[1] <= MOST
    told = {"value": value, "low": ends[0], "high": ends[1], "count": len(known), "most": MOST}
    if fit:
        verdict = Message(
            "Fit for exact-knowledge use: of {count} facts that the original knows, {value:.2%} were lost, weighted by "
            "how rarely they were seen, and more than {most:.0%} can be excluded ({low:.2%} to {high:.2%}).",
            **told,
        )
    else:
        verdict = Message(
            "Not fit for exact-knowledge use: of {count} facts that the original knows, {value:.2%} were lost, "
            "weighted by how rarely they were seen ({low:.2%} to {high:.2%}), so a loss of {most:.0%} cannot be "
            "excluded.",
            **told,
        )
    worst = sorted((count, i) for count, i, lost in zip(seen, known, gone, strict=True) if lost)[:SHOWN]
    examples = [
        Example(Message("seen {count} times", count=n), case.items[i].prompt, first[i].answer, second[i].answer)
        for n, i in worst
    ]
    return found([Reading("lost", value, ends)], examples, [verdict], fit=fit, known=len(known))


def _lacking(case: Case) -> Message | None:
    return None if case.items else Message("there are no questions (skills) to ask for facts with")


KNOWLEDGE = Aspect(
    "knowledge",
    standard=False,
    title=Message("Exact knowledge"),
    meaning=Message("what was lost of what the original knows, rare answers counting more"),
    lacking=_lacking,
    seconds=lambda case, each: 0.0,
    measure=_measure,
    answers=True,
)
