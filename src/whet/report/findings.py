"""The sentences at the top of the page: what the model is called, and what got worse, plainly.

A figure that does not keep its limit is `broken`; one that got worse by more than its error bar, which every model
that is made lighter has, is `clear`; one that chance explains is `unsure`; what stayed as it was although a reader
would hope for a gain (memory, speed) is `same`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from whet.measure.figures import ASPECTS
from whet.report.aspects import label, shown
from whet.report.numbers import figure, percent, size, times
from whet.report.words import Words

SURE = 0.05  # Holm's p under which a skill's loss is called clear
_UNCHANGED = 0.02  # share by which peak memory varies from run to run


KINDS = ("broken", "clear", "unsure", "same")


class Finding(NamedTuple):
    """One sentence. kind: one of KINDS."""

    kind: str
    sentence: str


def model_name(facts: Mapping[str, Any]) -> str | None:
    """`facts["name"]`, else the original's name in whet.json, the plan or the scores, else its folder's name."""
    sources = [(facts.get("lighter") or {}).get("base_model"), *((facts.get(k) or {}).get("model") for k in _MODELS)]
    named = [source["name"] for source in sources if isinstance(source, Mapping) and source.get("name")]
    folder = (facts.get("compare") or {}).get("original")
    return facts.get("name") or next(iter(named), None) or (PurePath(folder).name if folder else None)


_MODELS = ("plan", "scores")


def headline(facts: Mapping[str, Any], say: Words) -> str:
    """The page's title, from the best that is known: how much smaller, else that it is a plan, or scores."""
    name = model_name(facts) or say("unnamed")
    if facts.get("compare"):
        return say("title.shrink", name=name, times=times(facts["compare"]["size"]["shrink"])[:-1])
    kind = next((kind for kind in ("plan", "scores") if facts.get(kind)), "plain")
    return say(f"title.{kind}", name=name)


def findings(compare: Mapping[str, Any], say: Words) -> list[Finding]:
    """What got worse in a compare result, what breaks a limit first."""
    found = [*_skills(compare, say), *_text(compare, say), *_aspects(compare, say), *_cost(compare, say)]
    return sorted(found, key=lambda finding: KINDS.index(finding.kind))


def verdict_sentence(verdict: str, found: Sequence[Finding], say: Words) -> str:
    """What the verdict means; that limits hold does not mean that nothing got worse."""
    worse = verdict == "pass" and any(finding.kind == "clear" for finding in found)
    return say("verdict.pass.worse" if worse else f"verdict.{verdict}.long")


def weakest(compare: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The skill with the lowest retention; None without skills whose retention is known."""
    known = [entry for entry in compare["skills"] if entry["retention"]["value"] is not None]
    return min(known, key=lambda entry: entry["retention"]["value"], default=None)


def _skills(compare: Mapping[str, Any], say: Words) -> list[Finding]:
    broken = {j["of"] for j in compare["judgements"] if j["limit"] == "min_retention" and j["verdict"] == "fail"}
    found, unsure = [], []
    worse = [entry for entry in compare["skills"] if entry["flips"]["lost"] > entry["flips"]["gained"]]
    for entry in sorted(worse, key=lambda e: e["flips"]["gained"] - e["flips"]["lost"]):
        lost, gained = entry["flips"]["lost"], entry["flips"]["gained"]
        if entry["holm_p"] >= SURE and entry["skill"] not in broken:
            unsure.append(f"{entry['skill']} −{lost - gained}\u00a0/\u00a0{entry['items']:,}")
            continue
        accuracies = {key: percent(entry[which]["accuracy"]) for key, which in _BOTH}
        sentence = say(
            "worse.skill",
            skill=entry["skill"],
            **accuracies,
            lost=lost,
            gained=gained,
            items=f"{entry['items']:,}",
            p=figure(entry["holm_p"], 2),
        )
        found.append(Finding("broken" if entry["skill"] in broken else "clear", sentence))
    if unsure:
        found.append(Finding("unsure", say("worse.skills", list=", ".join(unsure))))
    return found


_BOTH = (("before", "original"), ("after", "lighter"))


# By what a model gives: the share that tells what changed, and the limits on it.
_ANSWERS = {
    "scores": ("order", ("min_order", "max_difference")),
    "vectors": ("neighbours", ("min_neighbours", "min_cosine", "max_error")),
}


def _text(compare: Mapping[str, Any], say: Words) -> list[Finding]:
    measured, found = compare["divergence"], []
    broken = {entry["limit"] for entry in compare["judgements"] if entry["verdict"] == "fail"}

    def kind(*limits: str) -> str:
        return "broken" if broken & {*limits} else "clear"

    if "answers" in measured:
        name, limits = _ANSWERS.get(measured["kind"], ("top1", ("min_top1", "max_kl")))
        told = measured[name]
        if told is not None and told["mean"] < 1:
            shown = {"share": percent(1 - told["mean"]), "count": f"{measured['answers']:,}"}
            found.append(Finding(kind(*limits), say(f"worse.{'classes' if name == 'top1' else name}", **shown)))
        return found
    perplexity, kl, top1 = measured["perplexity"], measured["kl"], measured["top1"]
    ratio = perplexity["ratio"]
    if ratio["value"] > 1:
        sure = ratio["interval"] is not None and ratio["interval"][0] > 1
        before, after = figure(perplexity["original"], 4), figure(perplexity["lighter"], 4)
        more = percent(ratio["value"] - 1, 2 if ratio["value"] < 1.1 else 0)
        sentence = say("worse.perplexity", before=before, after=after, more=more)
        found.append(Finding(kind("max_ppl_ratio") if sure or "max_ppl_ratio" in broken else "unsure", sentence))
    if top1["mean"] < 1:
        found.append(Finding(kind("min_top1"), say("worse.top1", share=percent(1 - top1["mean"]))))
    if kl["percentiles"].get("p99.9"):
        values = {"value": figure(kl["percentiles"]["p99.9"], 2), "mean": figure(kl["mean"], 2)}
        found.append(Finding(kind("max_kl"), say("worse.tail", **values)))
    return found


def _aspects(compare: Mapping[str, Any], say: Words) -> list[Finding]:
    """Limits on aspects that are broken."""
    from whet.measure.aspects import KNOWN  # which takes torch

    found = []
    for entry in compare["judgements"]:
        if entry["limit"] in ASPECTS and entry["verdict"] == "fail":
            about = ASPECTS[entry["limit"]]
            title = say.sentence(KNOWN[entry["limit"].partition(".")[0]].title)
            told = {"what": label(about, entry["of"], say), "value": shown(about, entry["value"])}
            found.append(Finding("broken", say("worse.aspect", title=title, **told)))
    return found


def _cost(compare: Mapping[str, Any], say: Words) -> list[Finding]:
    found = []
    for name in ("prefill", "decode") if compare.get("speed") else ():
        speed = compare["speed"][name]
        low, high = speed["ratio"]["spread"]
        shown = {key: figure(speed[which]) for key, which in _BOTH}
        what = say(f"{name}.word")
        if high < 1:
            ratio = times(speed["ratio"]["value"])
            found.append(Finding("clear", say("worse.slower", what=what, ratio=ratio, **shown)))
        elif low <= 1:
            found.append(Finding("same", say("same.speed", what=what, low=times(low), high=times(high))))
    memory = compare.get("memory") or {}
    before, after = (int((memory.get(which) or {}).get("peak_bytes") or 0) for _, which in _BOTH)
    if before and after > before * (1 - _UNCHANGED):
        rose = after > before * (1 + _UNCHANGED)
        key = "worse.memory" if rose else "same.memory"
        found.append(Finding("clear" if rose else "same", say(key, before=size(before), after=size(after))))
    return found
