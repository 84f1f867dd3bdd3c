"""Whether a model that practised got its skills back, and lost none: paired intervals over the same questions.

The original, the lighter model as it was and as it is now answer the same questions. A skill falls where its score is
below the interval that it had before, or where the paired interval of the change lies below nothing. The second has an
error of 2.5 % for all skills together (Bonferroni), as a gate has of failing wrongly (docs/gates.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from whet.measure.items import Item, by_skill
from whet.measure.judging import ERROR
from whet.measure.skills import Outcome, compare_skills
from whet.measure.statistics import independent_items, paired_difference
from whet.messages import Message, with_and

Answers = Mapping[str, Sequence[Outcome]]  # of `original`, `before` and `after`


def hurt_skills(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The skills of a comparison whose whole interval of retention is below the original's score."""
    return [
        entry["skill"]
        for entry in entries
        if entry["retention"]["interval"] is not None and entry["retention"]["interval"][1] < 1
    ]


def healed_skills(items: Sequence[Item], answers: Answers, practised: Collection[str]) -> list[dict[str, Any]]:
    """One entry a skill: `skill`, `practised`, `questions`, `before` and `after` (each retention's value and interval),
    `change` of the accuracy (value and interval), `fell`, `gained`."""
    before = compare_skills(items, answers["original"], answers["before"])
    after = compare_skills(items, answers["original"], answers["after"])
    table = []
    places = by_skill(items)
    for was, now in zip(before, after, strict=True):
        skill = was["skill"]
        change = _change(items, places[skill], answers, 1 - 2 * ERROR / len(before))
        interval = was["retention"]["interval"]
        below = interval is not None and now["retention"]["value"] < interval[0]
        table.append(
            {
                "skill": skill,
                "practised": skill in practised,
                "questions": was["items"],
                "before": {key: was["retention"][key] for key in ("value", "interval")},
                "after": {key: now["retention"][key] for key in ("value", "interval")},
                "change": change,
                "fell": below or change["interval"][1] < 0,
                "gained": change["interval"][0] > 0,
            }
        )
    return table


def _change(items: Sequence[Item], places: Sequence[int], answers: Answers, confidence: float) -> dict[str, Any]:
    """How the accuracy of a skill changed, with its paired interval by groups."""
    flips = [answers["after"][i].right - answers["before"][i].right for i in places]
    names = [items[i].group or f"\0{i}" for i in places]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    groups = [numbers[name] for name in names]
    weight = independent_items(flips, groups, confidence) / len(flips)
    interval = paired_difference(flips.count(-1) * weight, flips.count(1) * weight, len(flips) * weight, confidence)
    return {"value": sum(flips) / len(flips), "interval": list(interval)}


def verdict(table: Sequence[Mapping[str, Any]], to: float) -> tuple[str, Message]:
    """`healed` (every practised skill has `to` of the original's score), `better` (each that has not gained surely),
    or `rolled back`, and why."""
    fallen = [entry for entry in table if entry["fell"]]
    if fallen:
        worst = min(fallen, key=lambda entry: entry["change"]["value"])
        return "rolled back", Message(
            "{skills} fell: {skill} by {change:.1%} of its questions ({low:.1%} to {high:.1%})",
            skills=with_and([entry["skill"] for entry in fallen]),
            skill=worst["skill"],
            change=-worst["change"]["value"],
            low=-worst["change"]["interval"][1],
            high=-worst["change"]["interval"][0],
        )
    short = [entry for entry in table if entry["practised"] and (entry["after"]["value"] or 0.0) < to]
    if not short:
        return "healed", Message("no skill fell, and all that were practised have {to:.0%} of the original's", to=to)
    names = with_and([entry["skill"] for entry in short])
    if all(entry["gained"] for entry in short):
        return "better", Message(
            "no skill fell, but {skills} stayed below {to:.0%} of the original's", skills=names, to=to
        )
    return "rolled back", Message(
        "{skills} gained no more than chance may give, and stayed below {to:.0%} of the original's", skills=names, to=to
    )
