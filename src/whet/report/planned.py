"""What the page shows of a plan's choices: the scheme of every part, and where the predicted loss sits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from whet.report.named import meanings
from whet.report.numbers import NONE, bits_of, figure, percent, size
from whet.report.tables import Row, Table
from whet.report.words import Words


class Part(NamedTuple):
    """A linear, embedding or head. block: None outside the blocks."""

    address: str
    scheme: str
    block: int | None
    role: str


_HEAVIEST = 8
_EXACT = 5e-5  # a gap that shows as 0.00 %


def schemes(facts: Mapping[str, Any], say: Words) -> dict[str, Any] | None:
    """A grid of blocks and roles, the parts outside it, where the predicted loss sits; None where no part is known."""
    plan, parts = facts.get("plan") or {}, parts_of(facts)
    if not parts:
        return None
    grid: dict[int, dict[str, str]] = {}
    outside = []
    for part in parts:
        if part.block is None:
            outside.append({"name": say.known(f"role.{part.role}", part.role), **_cell(part.scheme, say)})
        else:
            grid.setdefault(part.block, {})[part.role] = part.scheme
    roles = list(dict.fromkeys(role for row in grid.values() for role in row))
    rows = [
        {"block": block, "cells": [_cell(row[role], say) if role in row else None for role in roles]}
        for block, row in sorted(grid.items())
    ]
    kinds = {part.scheme for part in parts}
    widths = sorted({bits for scheme in kinds if (bits := bits_of(scheme)) is not None})
    legend = [{"text": say("bits", bits=bits), "css": _css(bits)} for bits in widths]
    if any(bits_of(scheme) is None for scheme in kinds):
        legend.append({"text": say("keep"), "css": _css(None)})
    return {
        "lede": say("schemes.lede", count=len(parts), kinds=len(kinds)),
        "facts": [*_sentences(plan, say), *repair(facts, say)],
        "roles": roles,
        "rows": rows,
        "outside": outside,
        "legend": legend,
        "named": meanings(kinds, say),
        "heavy": _heavy(plan, (facts.get("lighter") or {}).get("linears") or {}, say),
        "left_out": {
            "title": say("plan.left", target=plan.get("target", "")),
            "items": [say.sentence(line) for line in plan.get("left_out") or ()],
        },
    }


def parts_of(facts: Mapping[str, Any]) -> list[Part]:
    """Every part that a scheme is known of: the plan's schemes, else those in whet.json.

    Roles and blocks are those in the scores or in whet.json. For an address that neither names, the number in it is its
    block, and its role is what follows the number: the last name of it, where that is enough to tell roles apart.
    """
    written = (facts.get("lighter") or {}).get("linears") or {}
    chosen = (facts.get("plan") or {}).get("schemes") or {a: entry.get("grid", "keep") for a, entry in written.items()}
    scored = {part["address"]: part for part in (facts.get("scores") or {}).get("parts", ())}
    inside = {address: re.search(r"\.(\d+)\.(.+)", address) for address in chosen}
    tails = {found[2] for found in inside.values() if found}
    short = len({tail.rpartition(".")[2] for tail in tails}) == len(tails)
    parts = []
    for address, scheme in chosen.items():
        named, found = scored.get(address) or written.get(address) or {}, inside[address]
        tail = found[2] if found else address
        block = named["block"] if "block" in named else int(found[1]) if found else None
        role = named.get("role") or (tail.rpartition(".")[2] if short and found else tail)
        parts.append(Part(address, scheme, block, role))
    return parts


def _cell(scheme: str, say: Words) -> dict[str, str]:
    return {"text": say("keep") if scheme == "keep" else scheme, "css": _css(bits_of(scheme))}


def _css(bits: int | None) -> str:
    """The style sheet has a colour for 2 to 8 bits and one for what is kept."""
    return "bits-keep" if bits is None else f"bits-{min(8, max(2, bits))}"


def repair(facts: Mapping[str, Any], say: Words) -> list[str]:
    """The sentence on the adapter that goes with the folder, if one does."""
    about = (facts.get("lighter") or {}).get("adapter")
    if about is None:
        return []
    return [say("repair", count=about["modules"], rank=about["rank"], size=size(about["bytes"]))]


def _sentences(plan: Mapping[str, Any], say: Words) -> list[str]:
    if not plan:
        return []
    asked = (plan.get("budget") or {}).get("asked") or say("plan.none")
    found = [say("plan.asked", asked=asked, target=plan.get("target") or NONE)]
    found.append(say("plan.made", scorer=plan.get("scorer") or NONE, solver=plan.get("solver") or NONE))
    if plan.get("gap"):
        gap, asked_for = plan["gap"], (plan.get("budget") or {}).get("kind")
        where = say("plan.stock") if gap.get("among") == "stock" else plan.get("target") or NONE
        kind = "gap" if gap["relative"] >= _EXACT else "exact"
        of = ".bytes" if asked_for == "quality" else ""
        found.append(say(f"plan.{kind}{of}", where=where, relative=percent(gap["relative"], 2)))
        if (free := gap.get("free")) is not None:
            found.append(say("plan.free", kl=figure(free["kl"]), bits=figure(free["bits"])))
    return found


def _heavy(plan: Mapping[str, Any], linears: Mapping[str, Any], say: Words) -> Table | None:
    """The parts that are predicted to lose most; with what each lost alone, where that was measured."""
    by_part = (plan.get("predicted") or {}).get("by_part") or {}
    total = sum(by_part.values())
    if total <= 0:
        return None
    alone = {address: entry["kl"] for address, entry in linears.items() if "kl" in entry}
    middle = [say("heavy.kl"), *([say("heavy.alone")] if alone else [])]
    table = Table(say("heavy"), [say("part.address"), say("scheme"), *middle, say("heavy.share")], wide=True)
    for address, kl in sorted(by_part.items(), key=lambda item: -item[1])[:_HEAVIEST]:
        scheme = _cell(plan["schemes"].get(address, "keep"), say)["text"]
        measured = [figure(alone.get(address))] if alone else []
        table.rows.append(Row(address, [scheme, figure(kl), *measured, percent(kl / total)]))
    return table
