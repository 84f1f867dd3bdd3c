"""Statements for measuring belief: facts the embedded model was taught, told as they are and otherwise."""

from __future__ import annotations

from random import Random
from typing import Any

from whet.starter.tasks import fact_forms
from whet.starter.words import Fact, facts


def beliefs(per_kind: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Statements as `whet compare --beliefs` reads them, in both languages, `per_kind` of each of six kinds of fact.

    A statement and its negation differ in the value: one of the two is the fact. As an answer the model is asked for
    the value, in the three wordings it was trained on.
    """
    rng = Random(f"starter beliefs {seed}")
    book: dict[str, list[Fact]] = {}
    for fact in facts():
        book.setdefault(fact.kind, []).append(fact)
    made = []
    for those in book.values():
        values = list(dict.fromkeys(fact.value for fact in those))
        for fact in rng.sample(those, per_kind):
            other = fact._replace(value=rng.choice([value for value in values if value != fact.value]))
            truth = rng.random() < 0.5
            first, second = (fact_forms(one) for one in ((fact, other) if truth else (other, fact)))
            made.append(
                {
                    "statement": first.told[0],
                    "negation": second.told[0],
                    "truth": truth,
                    "paraphrases": first.told[1:],
                    "group": fact.subject,
                    "language": "en" if fact.subject.isascii() else "ko",
                    "ask": first.asked,
                    "answers": [f" {first.answer}", f" {second.answer}"],
                }
            )
    return made
