"""Text and questions of a recipe, divided before the first step: what calibrates, what gates, what reports.

The report's part is opened once, when every step is done. Parts are disjoint, and the same for the same text and seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.checkpoint import load_tokenizer
from whet.measure.items import Item, by_skill, read_skills
from whet.messages import Message
from whet.text import Amount, fingerprint, read_text, split

# Shares of the questions of each skill: for budgets, for gates, and the rest for the report.
_BUDGETS, _GATES = 0.2, 0.4


@dataclass(frozen=True)
class Divided:
    """Documents and questions by what they are for; None, or none, where the recipe names none."""

    solve: list[str] | None
    gate: list[str] | None
    report: list[str] | None
    items: dict[str, list[Item]]
    mark: str
    notes: tuple[Message, ...] = ()

    @classmethod
    def of(
        cls,
        model: str | Path,
        text: str | Path | Sequence[str] | None,
        skills: str | Path | Sequence[Mapping[str, Any]] | None,
        *,
        field: str,
        chat: bool,
        seed: int,
        budgets: bool,
        skip_bad: bool = False,
        amount: Amount | None = None,
    ) -> Divided:
        """Read and divide. budgets: whether a step asks questions itself; else gates and report share them all.
        amount: how much of the text is read, as much as the steps need.

        Raises UsageError for what cannot be read, and for text too short to be divided.
        """
        documents: list[str] | None = None
        notes: tuple[Message, ...] = ()
        if isinstance(text, str | Path):
            found = read_text(text, field, chat=chat, tokenizer=load_tokenizer(model), skip_bad=skip_bad, amount=amount)
            documents, notes = found.documents, found.notes
        elif text is not None:
            documents = list(text)
        parts = None if documents is None else split(documents, seed)
        items = [] if skills is None else read_skills(skills)
        whole = [
            None if documents is None else fingerprint(documents),
            [item.record() for item in items],
            seed,
            budgets,
        ]
        return cls(
            None if parts is None else parts.solve,
            None if parts is None else parts.verify,
            None if parts is None else parts.report,
            _divided(items, seed, _BUDGETS if budgets else 0.0),
            hashlib.sha256(json.dumps(whole, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest(),
            notes,
        )


def _divided(items: Sequence[Item], seed: int, budgets: float) -> dict[str, list[Item]]:
    """Questions by what they are for, skill by skill. Those of one group stay together."""
    found: dict[str, list[Item]] = {"solve": [], "gate": [], "report": []}
    for skill, places in by_skill(items).items():
        mine = [(number, items[number]) for number in places]
        groups = dict.fromkeys(item.group or f"\0{number}" for number, item in mine)
        ranked = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}\0{skill}\0{group}".encode()).digest())
        solve = round(budgets * len(ranked))
        gate = solve + round((_GATES if budgets else 0.5) * len(ranked))
        place = {g: "solve" if n < solve else "gate" if n < gate else "report" for n, g in enumerate(ranked)}
        for number, item in mine:
            found[place[item.group or f"\0{number}"]].append(item)
    return found
