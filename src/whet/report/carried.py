"""What the page shows of scores: the map from blocks to skills and languages, outliers, findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from whet.report.numbers import NONE, figure, percent, size, times
from whet.report.tables import Row, Table
from whet.report.words import Words

STEPS = 8  # shades of the map; the style sheet has heat-0 to heat-8
_SPIKE, _LARGEST = 20.0, 12  # the ratio from which an outlier is shown, and how many


def scores(found: Mapping[str, Any], say: Words) -> dict[str, Any] | None:
    """The heat map and its numbers; None where the scores have no blocks."""
    blocks = found.get("blocks") or []
    if not blocks:
        return None
    columns = _columns(found, say)
    totals = [sum(column["values"]) for column in columns]
    shares = [
        [value / total if total > 0 else None for value in column["values"]]
        for column, total in zip(columns, totals, strict=True)
    ]
    most = max((share for column in shares for share in column if share is not None), default=0) or 1
    rows = [
        {"block": block["index"], "cells": [_cell(column[place], most) for column in shares]}
        for place, block in enumerate(blocks)
    ]
    raw = Table(say("scores.raw"), [say("block"), *(column["name"] for column in columns), say("influence")])
    for place, block in enumerate(blocks):
        cells = [figure(column["values"][place], 2) for column in columns]
        raw.rows.append(Row(str(block["index"]), [*cells, figure(block.get("influence"), 2)]))
    about = ""
    if found.get("tokens"):
        tokens, seconds = f"{found['tokens']:,}", found.get("seconds")
        about = say("scores.tokens", tokens=tokens)
        if seconds:
            about = say("scores.from", tokens=tokens, time=say.duration(seconds))
    return {
        "columns": columns,
        "rows": rows,
        "raw": raw,
        "about": about,
        "outliers": _outliers(blocks, say),
        "findings": told(found, say),
    }


def _columns(found: Mapping[str, Any], say: Words) -> list[dict[str, Any]]:
    """All text, then skills, then languages; a block that lacks a figure counts as 0."""
    blocks = found["blocks"]
    columns = [{"name": say("all"), "kind": "all", "values": [block.get("sensitivity") or 0.0 for block in blocks]}]
    skills = found.get("skills") or list(dict.fromkeys(name for block in blocks for name in block.get("skills") or ()))
    languages = list(dict.fromkeys(name for block in blocks for name in block.get("languages") or ()))
    for kind, names in (("skills", skills), ("languages", languages)):
        for place, name in enumerate(names):
            values = [(block.get(kind) or {}).get(name) or 0.0 for block in blocks]
            shown = say.known(f"language.{name}", name) if kind == "languages" else name
            columns.append({"name": shown, "kind": f"{kind} first" if place == 0 else kind, "values": values})
    return columns


def _cell(share: float | None, most: float) -> dict[str, str]:
    if share is None:
        return {"text": "–", "css": "heat-0"}
    return {"text": f"{100 * share:.0f}", "css": f"heat-{round(STEPS * max(0.0, share) / most)}"}


def told(found: Mapping[str, Any], say: Words) -> list[str]:
    """What an inspection found (`whet.recipe.inspect`), as sentences; kinds from a later version are left out."""
    shown: dict[str, Callable[[Any], str]] = {
        "ratio": times,
        "share": percent,
        "usual": percent,
        "saved": size,
        "kl": figure,
    }
    sentences = []
    for finding in found.get("findings") or ():
        values = {key: shown[key](value) if key in shown else value for key, value in finding.items()}
        if finding["kind"] == "idle":
            values["blocks"] = ", ".join(map(str, finding["blocks"]))
        sentences.append(say.known(f"finding.{finding['kind']}", "", **values))
    return [sentence for sentence in sentences if sentence]


def _outliers(blocks: list[Mapping[str, Any]], say: Words) -> Table | None:
    """The largest first: where an input is far above the usual ones, on which channel and token."""
    head = [say("part.address"), say("times.typical"), say("channel"), say("token")]
    table = Table(say("outliers"), head, wide=True)
    every = [entry for block in blocks for entry in block.get("outliers") or () if entry["ratio"] >= _SPIKE]
    for entry in sorted(every, key=lambda e: -e["ratio"])[:_LARGEST]:
        token = entry.get("text", entry.get("token", NONE))
        cells = [times(entry["ratio"]), str(entry.get("channel", NONE)), str(token)]
        table.rows.append(Row(entry["address"], cells))
    return table if table.rows else None
