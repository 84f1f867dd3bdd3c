"""The timeline of a recipe's run: every step with its tries, what its gate found, its bytes and its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whet.report.numbers import NONE, figure, size
from whet.report.tables import Row, Table, two_lines, verdict_badge
from whet.report.words import Words

_VERDICTS = {"kept": "pass", "skipped": "not judged", "stopped": "fail", "undecided": "inconclusive"}


def timeline(steps: Sequence[Mapping[str, Any]], say: Words) -> Table | None:
    """A row a try, in the order they were made; None without steps.

    steps: as `whet.run` returns them.
    """
    if not steps:
        return None
    head = ["step", "outcome", "gate", "bytes", "seconds.head"]
    table = Table(say("steps.table"), [say(name) for name in head], words=True, wide=True)
    for step in steps:
        name = f"{step['step']} {step['craft']}"
        if not step["attempts"]:
            table.rows.append(Row(name, [_badge(step["outcome"], say), "", "", ""]))
        for number, attempt in enumerate(step["attempts"], 1):
            last = number == len(step["attempts"])
            outcome = attempt.get("outcome") or (step["outcome"] if last else "tried")
            gate = attempt.get("gate")
            cells = [
                _badge(outcome, say),
                _gate(gate, say) if gate else "",
                size(attempt["bytes"]),
                say.duration(attempt["seconds"]),
            ]
            table.rows.append(Row(two_lines(name, _options(attempt["options"]), wraps=True), cells))
    return table


def _badge(outcome: str, say: Words) -> Any:
    return verdict_badge(_VERDICTS.get(outcome, "not judged"), say(f"outcome.{outcome}"))


def _gate(gate: Mapping[str, Any], say: Words) -> Any:
    """Each figure with its limit and what was measured."""
    told = [
        f"{one['figure']} {NONE if one['value'] is None else figure(one['value'])} ({figure(one['at'])})"
        for one in gate["judgements"]
    ]
    return two_lines(say(f"gate.{gate['verdict']}"), "; ".join(told), wraps=True)


def _options(options: Mapping[str, Any]) -> str:
    """The options that say what is done; where text comes from stands elsewhere."""
    left = ("text", "field", "chat", "skip_bad", "samples", "window", "eval", "skills")
    return ", ".join(f"{name} {value}" for name, value in options.items() if name not in left)
