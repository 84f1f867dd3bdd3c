"""Figures that may be limited, and the verdict: inconclusive where an error bar straddles a limit.

A limit passes only when the whole interval is on its good side: "not shown to be worse" is not "shown to be no worse".
`compare` names limits by their side (`max_kl`), a gate by the figure (`kl`); the table is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from whet.errors import UsageError, did_you_mean

Verdict = Literal["pass", "fail", "inconclusive", "not judged"]
Source = Literal["size", "memory", "text", "skills", "speed"]


@dataclass(frozen=True)
class Figure:
    """`upper`: the figure must not be above a limit, else not below it. `low` to `high` is what a limit may be set to.

    meaning: what is judged, in words. source: what it is measured on. limit: what `compare` calls a limit on it, None
    where it has none; default: the limit unless set, None: judged only when set.
    """

    meaning: str
    upper: bool
    source: Source
    low: float = 0.0
    high: float = math.inf
    limit: str | None = None
    default: float | None = None

    def allows(self, value: Any) -> bool:
        """Whether `value` can be a limit on this figure."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and self.low <= value <= self.high


FIGURES = {
    "kl": Figure("mean KL in nats a token", True, "text", limit="max_kl", default=0.1),
    "top1": Figure(
        "share of tokens with the same first choice", False, "text", high=1.0, limit="min_top1", default=0.85
    ),
    "perplexity": Figure("perplexity over the original's", True, "text", limit="max_ppl_ratio", default=1.1),
    "retention": Figure(
        "accuracy over the original's, above chance",
        False,
        "skills",
        high=2.0,
        limit="min_retention",
        default=0.95,
    ),
    "shrink": Figure("times smaller on disk, the whole folder", False, "size", limit="min_shrink"),
    "prefill.speedup": Figure("times faster through a prompt, side by side", False, "speed"),
    "decode.speedup": Figure("times faster at each new token, side by side", False, "speed"),
    "memory": Figure("peak memory over the original's", True, "memory"),
}
LIMITS = {figure.limit: figure for figure in FIGURES.values() if figure.limit is not None}


def resolve_limits(given: Mapping[str, float | None] | None, has_skills: bool) -> dict[str, float]:
    """The defaults with `given` over them; None as a value turns a limit off.

    Raises UsageError for an unknown name (did-you-mean), a value that is no number or out of range, and a limit on
    skills when there are none.
    """
    resolved = {name: limit.default for name, limit in LIMITS.items()}
    for name, value in (given or {}).items():
        if name not in LIMITS:
            raise UsageError(
                f"There is no limit {name}.{did_you_mean(name, LIMITS)} The limits are: {', '.join(LIMITS)}."
            )
        figure = LIMITS[name]
        if value is not None and not figure.allows(value):
            raise UsageError(
                f"Limit {name} is {value!r}; it must be a number from {figure.low:g} to {figure.high:g} "
                f"({figure.meaning})."
            )
        if name == "min_retention" and value is not None and not has_skills:
            raise UsageError("Limit min_retention was set, but no skills were given to judge it by. Give skills.")
        resolved[name] = value
    if not has_skills:
        resolved["min_retention"] = None
    return {name: float(value) for name, value in resolved.items() if value is not None}


def judge(
    name: str, at: float, value: float | None, interval: Sequence[float] | None, *, exact: bool = False, of: str = ""
) -> dict[str, Any]:
    """One judgement as a dict: `limit`, `at`, `of` (the skill, or ''), `value`, `interval`, `verdict`, `reason`.

    `exact` means that the figure has no error (bytes; a model compared with itself), so the interval has no say.
    """
    figure = LIMITS[name]
    verdict, why = weigh(figure, at, value, interval, exact=exact)
    if verdict == "inconclusive" and interval is not None:
        why += ": more text or items would tell"
    shown = f"{of}: " if of else ""
    return {
        "limit": name,
        "at": at,
        "of": of,
        "value": value,
        "interval": None if interval is None else list(interval),
        "verdict": verdict,
        "reason": f"{name}: {shown}{figure.meaning}: {why}.",
    }


def weigh(
    figure: Figure, at: float, value: float | None, interval: Sequence[float] | None, *, exact: bool, bar: str = "95 % "
) -> tuple[Verdict, str]:
    """The verdict on one figure, and why, as the end of a sentence; `bar` says which interval it is."""
    if value is None:
        return "not judged", "there is nothing to keep"
    side = "above" if figure.upper else "below"
    if exact:
        inside = value <= at if figure.upper else value >= at
        return ("pass", f"{value:.4g} is not {side} {at:g}") if inside else ("fail", f"{value:.4g} is {side} {at:g}")
    if interval is None:
        return "inconclusive", f"{value:.4g} has no error bar: one cluster of text tells nothing of others"
    best, worst = (interval[0], interval[1]) if figure.upper else (interval[1], interval[0])
    passes, fails = (worst <= at, best > at) if figure.upper else (worst >= at, best < at)
    shown = f"{value:.4g} ({bar}interval {interval[0]:.4g} to {interval[1]:.4g})"
    if passes:
        return "pass", f"{shown} is not {side} {at:g}"
    if fails:
        return "fail", f"{shown} is {side} {at:g}"
    return "inconclusive", f"{shown} has {at:g} inside"


def overall(judgements: Sequence[Mapping[str, Any]]) -> Literal["pass", "fail", "inconclusive"]:
    """fail if any limit is broken, else inconclusive if any is open, else pass."""
    verdicts = {judgement["verdict"] for judgement in judgements}
    return "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
