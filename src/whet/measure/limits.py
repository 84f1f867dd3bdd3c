"""Figures that may be limited, and the verdict: inconclusive where an error bar straddles a limit.

A limit passes only when the whole interval is on its good side: "not shown to be worse" is not "shown to be no worse".
`compare` names limits by their side (`max_kl`), a gate by the figure (`kl`); the table is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from whet.errors import UsageError, did_you_mean
from whet.measure.figures import ANSWERED, ASPECTS, FIGURES, LIMITS, SCORES, Figure
from whet.messages import Message, listed

Verdict = Literal["pass", "fail", "inconclusive", "not judged"]
_CALLED = {
    "predictions": Message("predictions of tokens"),
    "classes": Message("classes"),
    "decisions": Message("decisions"),
    "scores": Message("scores"),
    "vectors": Message("hidden states"),
}


def resolve_limits(
    given: Mapping[str, float | None] | None,
    has_skills: bool,
    answers: str = "predictions",
    aspects: Collection[str] = (),
) -> dict[str, float]:
    """The defaults with `given` over them; None as a value turns a limit off. answers: a key of ANSWERED. aspects:
    those that are measured.

    Raises UsageError for an unknown name (did-you-mean), a value that is no number or out of range, and a limit on
    skills when there are none.
    """
    apart = {
        figure.limit
        for name, figure in (FIGURES | SCORES).items()
        if figure.source == "text" and name not in ANSWERED[answers]
    }
    unmeasured = {name for name in ASPECTS if name.partition(".")[0] not in aspects}
    resolved = {name: limit.default for name, limit in LIMITS.items() if name not in apart | unmeasured}
    for name, value in (given or {}).items():
        if name not in LIMITS:
            raise UsageError(
                "There is no limit {name}.{near} The limits are: {known}.",
                name=name,
                near=did_you_mean(name, LIMITS),
                known=", ".join(LIMITS),
            )
        if name in apart:
            raise UsageError(
                "Limit {name} does not go with a model that gives {answers}. Limits of such are: {known}.",
                name=name,
                answers=_CALLED[answers],
                known=", ".join(resolved),
            )
        if name in unmeasured:
            raise UsageError(
                "Limit {name} is on {aspect}, which is not measured. Measure it too: --measure {aspect}.",
                name=name,
                aspect=name.partition(".")[0],
            )
        figure = LIMITS[name]
        if value is not None and not figure.allows(value):
            raise UsageError(
                "Limit {name} is {value!r}; it must be a number from {low:g} to {high:g} ({figure}).",
                name=name,
                value=value,
                low=figure.low,
                high=figure.high,
                figure=figure.meaning,
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
        why = Message("{why}: more text or items would tell", why=why)
    what = listed([name, *([of] if of else []), figure.meaning], ": ")
    return {
        "limit": name,
        "at": at,
        "of": of,
        "value": value,
        "interval": None if interval is None else list(interval),
        "verdict": verdict,
        "reason": Message("{what}: {why}.", what=what, why=why),
    }


def weigh(
    figure: Figure, at: float, value: float | None, interval: Sequence[float] | None, *, exact: bool, bar: str = "95 % "
) -> tuple[Verdict, Message]:
    """The verdict on one figure, and why, as the end of a sentence; `bar` says which interval it is."""
    if value is None:
        return "not judged", Message("there is nothing to keep")
    if exact:
        inside = value <= at if figure.upper else value >= at
        return ("pass" if inside else "fail"), _beside(f"{value:.4g}", at, figure.upper, inside)
    if interval is None:
        why = Message("{value:.4g} has no error bar: one cluster of text tells nothing of others", value=value)
        return "inconclusive", why
    low, high = interval
    best, worst = (low, high) if figure.upper else (high, low)
    passes, fails = (worst <= at, best > at) if figure.upper else (worst >= at, best < at)
    shown = Message("{value:.4g} ({bar}interval {low:.4g} to {high:.4g})", value=value, bar=bar, low=low, high=high)
    if passes or fails:
        return ("pass" if passes else "fail"), _beside(shown, at, figure.upper, passes)
    return "inconclusive", Message("{shown} has {at:g} inside", shown=shown, at=at)


def _beside(shown: str, at: float, upper: bool, inside: bool) -> Message:
    """On which side of the limit `at` a value lies."""
    if upper and inside:
        return Message("{shown} is not above {at:g}", shown=shown, at=at)
    if upper:
        return Message("{shown} is above {at:g}", shown=shown, at=at)
    if inside:
        return Message("{shown} is not below {at:g}", shown=shown, at=at)
    return Message("{shown} is below {at:g}", shown=shown, at=at)


def judgements(result: Mapping[str, Any], identical: bool) -> list[dict[str, Any]]:
    """One judgement a limit; a model that is its original on every token and item is judged without error bars."""
    measured = result["divergence"]
    names = {figure.limit: name for name, figure in (FIGURES | SCORES).items() if name in measured}
    del names["max_ppl_ratio"]
    found = {limit: measured.get(name) or {"mean": None, "interval": None} for limit, name in names.items()}
    figures = {limit: (told["mean"], told["interval"]) for limit, told in found.items()}
    if measured["perplexity"] is not None:
        ratio = measured["perplexity"]["ratio"]
        figures["max_ppl_ratio"] = (ratio["value"], ratio["interval"])
    made = []
    for name, at in result["limits"].items():
        if name == "min_retention":
            for entry in result["skills"]:
                kept = entry["retention"]
                made.append(judge(name, at, kept["value"], kept["interval"], exact=identical, of=entry["skill"]))
        elif name in ASPECTS:
            made += [
                judge(name, at, read["value"], read["interval"], exact=read["exact"], of=read["of"])
                for read in readings(result, name)
            ]
        elif name == "min_shrink":
            made.append(judge(name, at, result["size"]["shrink"], None, exact=True))
        else:
            made.append(judge(name, at, *figures[name], exact=identical))
    return made


def overall(found: Sequence[Mapping[str, Any]]) -> Literal["pass", "fail", "inconclusive"]:
    """fail if any limit is broken, else inconclusive if any is open, else pass."""
    verdicts = {judgement["verdict"] for judgement in found}
    return "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"


def readings(result: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """What an aspect measured of the figure `name` (ASPECT.figure), one entry for each of its parts."""
    aspect, _, figure = name.partition(".")
    measured = result["aspects"].get(aspect) or {"readings": []}
    return [read for read in measured["readings"] if read["figure"] == figure]
