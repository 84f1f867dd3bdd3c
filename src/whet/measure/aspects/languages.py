"""What was kept of each language: divergence by the script of the text, answers by the language of the question.

A mean over all text hides a language that few documents are in. A window of text counts for the script that most of its
letters are in; a question for the `language` that its item names, else for the script of its prompt and answer.
Documents whose records say of which class they are, and questions marked `edge`, are slices of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from whet.events import OnEvent
from whet.measure.aspects.aspect import Aspect, Case, Reading, Sides, found, predicts
from whet.measure.items import Item
from whet.measure.statistics import clustered_mean, skewed_ratio
from whet.messages import Message
from whet.text import Classed
from whet.text.scripts import LANGUAGES, main_script

FEWEST = 16  # windows, or items, of a language that is told apart


def language_of(text: str) -> str:
    """What a text counts for: the language where its script is of one alone, else the script, small; '' of none."""
    script = main_script(text)
    alone = [name for name, scripts in LANGUAGES.items() if scripts == (script,)]
    return alone[0] if len(alone) == 1 else script.lower()


def language_of_item(item: Item) -> str:
    """The language that an item names, else that of what is asked and answered."""
    answer = item.choices[item.label] if item.choices else item.answer or ""
    return item.language or language_of(item.prompt + answer)


def _on_text(case: Case, sides: Sides, windows: Sequence[str], figures: Sequence[str]) -> list[Reading]:
    """KL and agreement, figures of these names, by what each window is of; '' for nothing."""
    place = sides.collected["window"]
    clusters = np.asarray(case.given.clusters)[place]
    kl, agree = (sides.collected[name].astype(np.float64) for name in ("kl", "agree"))
    readings = []
    for of in sorted({one for one in windows if windows.count(one) >= FEWEST and one}):
        mine = np.array([one == of for one in windows])[place]
        divergence = skewed_ratio(kl[mine], np.ones(mine.sum()), clusters[mine])
        readings.append(Reading.estimated(figures[0], divergence, of=of, exact=not kl[mine].any()))
        same = clustered_mean(agree[mine], clusters[mine])
        readings.append(Reading.estimated(figures[1], same, of=of, exact=bool(agree[mine].all())))
    return readings


def _by(figure: str, name: Callable[[Item], str], items: Sequence[Item], sides: Sides) -> list[Reading]:
    """The change of accuracy of items by what `name` says of them; '' for none."""
    names = [name(item) for item in items]
    readings = []
    for one in sorted({each for each in names if each and names.count(each) >= FEWEST}):
        mine = [i for i, each in enumerate(names) if each == one]
        rights = [[side[i].right for i in mine] for side in sides.outcomes]
        marks: list[Any] = [(i,) if items[i].group is None else items[i].group for i in mine]
        numbers = {mark: number for number, mark in enumerate(dict.fromkeys(marks))}
        if len(numbers) > 1:
            places = [numbers[mark] for mark in marks]
            same = rights[0] == rights[1]
            readings.append(Reading.changed(figure, rights[0], rights[1], places, of=one, exact=same))
    return readings


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    languages = [language_of(sides.lighter.decode(window.tolist())) for window in case.given.windows]
    readings = _on_text(case, sides, languages, ("kl", "top1"))
    kinds = [document.of if isinstance(document, Classed) else "" for document in case.given.documents]
    readings += _on_text(case, sides, kinds, ("class_kl", "class_top1"))
    if sides.outcomes:
        readings += _by("accuracy", language_of_item, case.items, sides)
        readings += _by("edge", lambda item: item.skill if item.edge else "", case.items, sides)
    notes = [] if readings else [Message("No language or class has {count} windows or questions.", count=FEWEST)]
    return found(readings, notes=notes)


LANGUAGES_KEPT = Aspect(
    "languages",
    standard=True,
    title=Message("Language by language"),
    meaning=Message("what was kept of each language, on text and in answers, and of edge cases"),
    lacking=predicts,
    seconds=lambda case, each: 0.0,
    measure=_measure,
    answers=True,
)
