"""Limits a user sets on what may be lost, and the verdict: inconclusive where an error bar straddles a limit.

A limit passes only when the whole interval is on its good side: "not shown to be worse" is not "shown to be no worse".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from whet.errors import UsageError, did_you_mean
from whet.messages import Message, listed

Verdict = Literal["pass", "fail", "inconclusive", "not judged"]


@dataclass(frozen=True)
class Limit:
    """`default` None: judged only when set. `upper`: the figure must not be above the limit, else not below it.

    `low` to `high` is what a limit may be set to; `figure` says what is judged.
    """

    default: float | None
    upper: bool
    low: float
    high: float
    figure: Message


LIMITS = {
    "max_kl": Limit(0.1, True, 0.0, float("inf"), Message("mean KL in nats a token")),
    "min_top1": Limit(0.85, False, 0.0, 1.0, Message("share of tokens with the same first choice")),
    "max_ppl_ratio": Limit(1.1, True, 0.0, float("inf"), Message("perplexity over the original's")),
    "min_retention": Limit(
        0.95, False, 0.0, float("inf"), Message("accuracy over the original's, above chance, of each skill")
    ),
    "min_shrink": Limit(None, False, 0.0, float("inf"), Message("times smaller on disk, the whole folder")),
}


def resolve_limits(given: Mapping[str, float | None] | None, has_skills: bool) -> dict[str, float]:
    """The defaults with `given` over them; None as a value turns a limit off.

    Raises UsageError for an unknown name (did-you-mean), a value that is no number or out of range, and a limit on
    skills when there are none.
    """
    resolved = {name: limit.default for name, limit in LIMITS.items()}
    for name, value in (given or {}).items():
        if name not in LIMITS:
            raise UsageError(
                "There is no limit {name}.{near} The limits are: {known}.",
                name=name,
                near=did_you_mean(name, LIMITS),
                known=", ".join(LIMITS),
            )
        limit = LIMITS[name]
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not limit.low <= value <= limit.high
        ):
            raise UsageError(
                "Limit {name} is {value!r}; it must be a number from {low:g} to {high:g} ({figure}).",
                name=name,
                value=value,
                low=limit.low,
                high=limit.high,
                figure=limit.figure,
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
    limit = LIMITS[name]
    verdict: Verdict
    if value is None:
        verdict, why = "not judged", Message("there is nothing to keep")
    else:
        inside = value <= at if limit.upper else value >= at
        if exact:
            verdict = "pass" if inside else "fail"
            why = _beside(f"{value:.4g}", at, limit.upper, inside)
        elif interval is None:
            verdict = "inconclusive"
            why = Message("{value:.4g} has no error bar: one cluster of text tells nothing of others", value=value)
        else:
            best, worst = (interval[0], interval[1]) if limit.upper else (interval[1], interval[0])
            passes, fails = (worst <= at, best > at) if limit.upper else (worst >= at, best < at)
            verdict = "pass" if passes else "fail" if fails else "inconclusive"
            bar = Message(
                "{value:.4g} (95 % interval {low:.4g} to {high:.4g})", value=value, low=interval[0], high=interval[1]
            )
            why = _beside(bar, at, limit.upper, passes)
            if verdict == "inconclusive":
                why = Message("{bar} has {at:g} inside: more text or items would tell", bar=bar, at=at)
    return {
        "limit": name,
        "at": at,
        "of": of,
        "value": value,
        "interval": None if interval is None else list(interval),
        "verdict": verdict,
        "reason": Message("{what}: {why}.", what=listed([name, *([of] if of else []), limit.figure], ": "), why=why),
    }


def _beside(value: str, at: float, upper: bool, inside: bool) -> Message:
    """On which side of the limit `at` a value lies."""
    if upper:
        return (
            Message("{value} is not above {at:g}", value=value, at=at)
            if inside
            else Message("{value} is above {at:g}", value=value, at=at)
        )
    return (
        Message("{value} is not below {at:g}", value=value, at=at)
        if inside
        else Message("{value} is below {at:g}", value=value, at=at)
    )


def overall(judgements: Sequence[Mapping[str, Any]]) -> Literal["pass", "fail", "inconclusive"]:
    """fail if any limit is broken, else inconclusive if any is open, else pass."""
    verdicts = {judgement["verdict"] for judgement in judgements}
    return "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
