"""What the page shows of a comparison's aspects: each a section of one form, whatever was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whet.measure.figures import ASPECTS, Figure
from whet.report.numbers import NONE, figure, interval, percent
from whet.report.tables import Row, Table, two_lines
from whet.report.words import Words


def aspects(compare: Mapping[str, Any], say: Words) -> list[dict[str, Any]]:
    """One entry an aspect that was measured: name, title, lede, table of its readings, examples."""
    return [_section(name, told, say) for name, told in (compare.get("aspects") or {}).items()]


def _section(name: str, told: Mapping[str, Any], say: Words) -> dict[str, Any]:
    from whet.measure.aspects import KNOWN  # which takes torch, and a page without aspects does not

    # what either model reads alone is shown only where some reading has it
    sides = any(read["original"] is not None or read["lighter"] is not None for read in told["readings"])
    head = [say("figure"), *([say("original"), say("lighter")] if sides else []), say("judged")]
    table = Table(say("aspect.table"), head, wide=True)
    for read in told["readings"]:
        about = ASPECTS[f"{name}.{read['figure']}"]
        alone = [shown(about, read[side]) for side in ("original", "lighter")] if sides else []
        ends = interval(read["interval"], about.unit == "share")
        table.rows.append(Row(label(about, read["of"], say), [*alone, two_lines(shown(about, read["value"]), ends)]))
    return {
        "name": name,
        "title": say.sentence(KNOWN[name].title),
        "lede": say("aspect.lede", meaning=say.sentence(KNOWN[name].meaning)),
        "table": table,
        "notes": [say.sentence(note) for note in told["notes"]],
        "examples": [{**one, "about": say.sentence(one["about"])} for one in told["examples"]],
    }


def label(about: Figure, of: str, say: Words) -> str:
    """A figure in words, with the part that it is of."""
    meaning = say.sentence(about.meaning)
    return f"{of}: {meaning}" if of else meaning


def shown(about: Figure, value: float | None) -> str:
    """A value of a figure, in its unit."""
    if value is None:
        return NONE
    if about.unit == "share":
        return percent(value)
    return f"{figure(value)}\u00a0{about.unit}" if about.unit else figure(value)
