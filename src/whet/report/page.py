"""`report.html`: one file with its style, its plots and a few lines of script inside, in English and Korean.

Everything the page shows is in the HTML in both languages; style alone shows the one that is chosen, so that the page
works with scripts off. The script remembers the choice and keeps the document's title and language in step. A policy
in the page's head forbids it to load anything, and any script but that one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

import whet
from whet.messages import Message
from whet.report import carried, compared, planned, steps, training
from whet.report import rate as rates
from whet.report.aspects import aspects
from whet.report.findings import Finding, findings, headline, verdict_sentence
from whet.report.numbers import NONE, figure, size
from whet.report.tables import RAN, Row, Table, verdict_badge
from whet.report.words import LANGUAGES, Words

_HERE = Path(__file__).parent
_SECTIONS = (
    "steps",
    "training",
    "worse",
    "limits",
    "quality",
    "skills",
    "aspects",
    "scores",
    "schemes",
    "rate",
    "rounds",
    "cost",
    "loading",
    "notes",
)


def page(facts: Mapping[str, Any], language: str = "en") -> str:
    """The page as HTML; the same facts give the same bytes.

    facts: `compare` (a result of `whet.compare`), `plan`, `scores` (their JSON), `lighter` (what whet.json holds),
    `run` (`seconds`, `memory` in bytes, `environment`), `loading` (a list of `runtime`, `checked`, `how`), `steps` (of
    a recipe's run), `name` (what to call the original; by default what the others call it). Each may be missing or
    None: its sections are left out.
    language: `en` or `ko`, what the page opens in. Raises ValueError for another language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    environment = _environment()
    script = (_HERE / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("template.html").render(
        views=[view(facts, Words(name)) for name in LANGUAGES],
        language=language,
        version=whet.__version__,
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=digest,
    )


def view(facts: Mapping[str, Any], say: Words) -> dict[str, Any]:
    """All that the template shows in one language, by section; a section without data is None or empty."""
    compare, plan = facts.get("compare"), facts.get("plan")
    found: dict[str, Any] = {
        "say": say,
        "steps": steps.timeline(facts.get("steps") or (), say),
        "training": training.curve(facts, say),
        "language": say.language,
        "title": headline(facts, say),
        "figures": compared.key_figures(compare, say) if compare else _planned_figures(plan, say) if plan else [],
        "verdict": None,
        "worse": None,
        "limits": compared.limits(compare, say) if compare else None,
        "quality": compared.quality(compare, say) if compare else None,
        "skills": compared.skills(compare, say) if compare else None,
        "aspects": aspects(compare, say) if compare else [],
        "scores": carried.scores(facts.get("scores") or {}, say),
        "schemes": planned.schemes(facts, say),
        "rate": rates.rate(facts, say),
        "rounds": rates.rounds(facts, say),
        "cost": _cost(facts, say),
        "loading": [_loading(entry, say) for entry in facts.get("loading") or ()],
        "notes": [say.sentence(note) for note in _notes(facts)],
    }
    if compare:
        verdict, worse = compare["verdict"], findings(compare, say)
        found["verdict"] = {
            "kind": verdict,
            "badge": verdict_badge(verdict, say(f"verdict.{verdict}")),
            "long": verdict_sentence(verdict, worse, say),
        }
        found["worse"] = {"none": say("worse.none"), "groups": _grouped(worse, say)}
    found["sections"] = [(name, say(name)) for name in _SECTIONS if found[name]]
    return found


def _grouped(found: Sequence[Finding], say: Words) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "word": say(f"worse.{kind}"), "sentences": [finding.sentence for finding in group]}
        for kind, group in groupby(found, key=lambda finding: finding.kind)
    ]


def _planned_figures(plan: Mapping[str, Any], say: Words) -> list[dict[str, str]]:
    """What stands under the title of a page that has a plan and no comparison yet."""
    found, predicted = [], plan.get("predicted") or {}
    budget = plan.get("budget") or {}
    if budget.get("asked"):
        of = say("key.budget.of", target=plan.get("target") or NONE)
        found.append({"label": say("key.budget"), "value": budget["asked"], "of": of})
    if predicted.get("bytes"):
        found.append({"label": say("key.predicted"), "value": size(predicted["bytes"]), "of": ""})
    if predicted.get("bits"):
        found.append({"label": say("key.bits"), "value": figure(predicted["bits"]), "of": say("key.bits.of")})
    if predicted.get("kl") is not None:
        of = say("key.predicted.kl.of")
        found.append({"label": say("key.predicted.kl"), "value": figure(predicted["kl"]), "of": of})
    return found


def _cost(facts: Mapping[str, Any], say: Words) -> dict[str, Any] | None:
    """Speed and memory side by side, what making and comparing took, and the machine."""
    compare, run = facts.get("compare") or {}, facts.get("run") or {}
    table = Table(say("environment"), [say("name"), say("value")], words=True)
    if run.get("seconds") is not None:
        table.rows.append(Row(say("run.seconds"), [say.duration(run["seconds"])]))
    if run.get("memory"):
        table.rows.append(Row(say("run.memory"), [size(run["memory"])]))
    if compare:
        table.rows.append(Row(say("compare.seconds"), [say.duration(compare["seconds"])]))
        table.rows += _comparing(facts, say)
    made, compared_on = run.get("environment") or {}, compare.get("environment") or {}
    table.rows += _machine(compared_on or made, say)
    found = compared.cost(compare, say) if compare else None
    tables = [table] if table.rows else []
    if made and compared_on and made != compared_on:
        tables[0].caption = say("environment.compare")
        tables.append(Table(say("environment"), [say("name"), say("value")], _machine(made, say), words=True))
    return {"lede": "", "table": None, **(found or {}), "tables": tables} if found or tables else None


def _comparing(facts: Mapping[str, Any], say: Words) -> list[Row]:
    compare = facts["compare"]
    text, options = compare["text"], compare["options"]
    rows = [
        Row(say("text.source"), [str(text["source"])]),
        Row(say("text.fingerprint"), [str(text["fingerprint"])[:16]]),
        Row(say("text.seed"), [str(options["seed"])]),
        Row(say("environment.dtype"), [" / ".join(dict.fromkeys(options["dtype"]))]),
    ]
    original = ((facts.get("lighter") or {}).get("base_model") or {}).get("sha256")
    return [*rows, *([Row(say("original.sha256"), [original[:16]])] if original else [])]


def _machine(environment: Mapping[str, Any], say: Words) -> list[Row]:
    return [
        Row(say.known(f"environment.{name}", name), [say("none") if value is None else str(value)])
        for name, value in environment.items()
    ]


def _loading(entry: Mapping[str, Any], say: Words) -> dict[str, Any]:
    checked = entry["checked"]
    css = "pass" if checked in RAN else "not-judged" if checked == "unsupported" else "inconclusive"
    told = {"here": False, **entry, "how": say.sentence(entry["how"])}
    return {**told, "css": css, "word": say.known(f"checked.{checked}", checked)}


def _notes(facts: Mapping[str, Any]) -> list[Message]:
    """The notes of all that is there, each once."""
    sources = [facts.get(name) or {} for name in ("compare", "lighter", "plan")]
    return list(dict.fromkeys(Message.read(note) for source in sources for note in source.get("notes") or ()))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(text: str, longest: int = 12) -> Markup:
    """`text`, escaped, whose words over `longest` characters may break after `_`, `.`, `/` and `-`."""
    if isinstance(text, Markup):
        return text
    words = (
        str(escape(w)) if len(w) <= longest else re.sub(r"([_./-])", r"\1<wbr>", str(escape(w)))
        for w in text.split(" ")
    )
    return Markup(" ".join(words))
