"""The facts of the page as Markdown, for the model card of a lighter folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from whet.report.compared import key_figures, limits, quality, skills
from whet.report.findings import findings, verdict_sentence
from whet.report.numbers import figure, size
from whet.report.planned import parts_of, repair
from whet.report.tables import RAN, Table
from whet.report.words import Words


def card_section(facts: Mapping[str, Any], language: str = "en") -> str:
    """Markdown with size, KL, skills, what got worse, schemes by role and how to load; what is missing is left out.

    facts: as for `whet.report.page`. Text of the model or the user is escaped, so that it stays text. Empty when
    nothing is known. Raises ValueError for a language other than `en` and `ko`.
    """
    say, parts = Words(language), []
    compare, plan = facts.get("compare"), facts.get("plan") or {}
    if compare:
        verdict = compare["verdict"]
        found = findings(compare, say)
        parts.append(f"**{say(f'verdict.{verdict}')}.** {verdict_sentence(verdict, found, say)}")
        rows = [[entry["label"], entry["value"], entry["of"]] for entry in key_figures(compare, say)]
        parts.append(_table([say("figure"), say("value"), ""], rows))
        worse = [f"- **{say(f'worse.{f.kind}')}**: {_plain(f.sentence)}" for f in found]
        parts += [f"## {say('worse')}", "\n".join(worse) or say("worse.none")]
        shown = quality(compare, say)
        parts += [f"## {say('quality')}", shown["lede"], _sheet(shown["sizes"]), _sheet(shown["divergence"])]
        parts += [f"## {say('limits')}", _sheet(limits(compare, say))]
        told = skills(compare, say)
        if told:
            parts += [f"## {say('skills')}", say("skills.lede"), _sheet(told["table"])]
    predicted = plan.get("predicted") or {}
    if predicted and not compare:
        rows = [[say("key.predicted"), size(predicted.get("bytes"))], [say("key.bits"), figure(predicted.get("bits"))]]
        rows.append([say("key.predicted.kl"), figure(predicted.get("kl"))])
        parts.append(_table([say("figure"), say("value")], rows))
    roles = schemes_by_role(facts)
    if roles:
        rows = [[say.known(f"role.{role}", role), ", ".join(_counted(found, say))] for role, found in roles.items()]
        parts += [f"## {say('schemes')}", _table([say("part"), say("scheme")], rows)]
    parts += repair(facts, say)
    if facts.get("loading"):
        parts.append(f"## {say('loading')}")
    for entry in facts.get("loading") or ():
        checked = entry["checked"]  # what whet's own tests run is no news of this model; what was not run is
        known = "" if checked in RAN else f": {_plain(say.known(f'checked.{checked}', checked))}"
        parts.append(f"**{_plain(entry['runtime'])}**{known}")
        parts += [_fenced(entry["how"])] if entry.get("how") else []
    return "\n\n".join(parts) + "\n" if parts else ""


def schemes_by_role(facts: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """How many parts of each role have each scheme: `{"q": {"int4-g64": 5, "keep": 1}}`."""
    found: dict[str, dict[str, int]] = {}
    for part in parts_of(facts):
        counts = found.setdefault(part.role, {})
        counts[part.scheme] = counts.get(part.scheme, 0) + 1
    return found


def _counted(found: Mapping[str, int], say: Words) -> list[str]:
    return [f"{count} × {say('keep') if scheme == 'keep' else scheme}" for scheme, count in sorted(found.items())]


def _sheet(table: Table) -> str:
    return _table(table.head, [[row.name, *map(_unmarked, row.cells)] for row in table.rows])


def _unmarked(cell: str) -> str:
    """The text of a cell that is HTML on the page."""
    if not isinstance(cell, Markup):
        return cell
    return str(Markup(re.sub(r"<small[^>]*>(.*?)</small>", r"(\1)", cell)).striptags())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_plain, line)) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])


def _fenced(text: str) -> str:
    """`text` as a block of code, in a fence longer than any in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def _plain(text: str) -> str:
    """`text` on one line with what Markdown or HTML would act on escaped."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.splitlines()))
