"""Rounds of a budget's run: a plan made and measured, and what to plan next from that."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.apply.job import Job, scale_dtype
from whet.budget import check_plan
from whet.budget.mix import Budget, make_plan
from whet.checkpoint import write_json
from whet.engines.torch import open_model
from whet.events import OnEvent, note_event
from whet.grids import parse_scheme
from whet.measure.items import Item
from whet.measure.skills import Outcome, compare_skills
from whet.measure.skills import score as ask
from whet.messages import Message
from whet.targets import find_target

# Of a size a plan is first tried on a share of the text, and at least so many tokens for each column of the widest
# input: what parts lose there beside what was predicted is nearly what they lose on all of it.
TRIED, _A_COLUMN = 0.25, 16
# What measuring that may take, as a multiple of solving on all the text.
ALONE = 0.35
QUALITY_ROUNDS = 6  # of a quality: its limit is searched for
_WORSE = 1.2  # times that the next plan loses what the trial did beyond which the first is made too: less is noise
_WORTH = 0.01  # predicted gain below which another round is not worth its time
_NEAR = 0.8  # a quality's round that uses so much of its limit is good enough
_MOST = 4.0  # times that a loss is corrected by
# Tokens on which a measured loss is worth as much as a predicted one: of the embedded model at 3 bits, losses on two
# texts of 4,096 tokens differ by a quarter, predictions are off by nearly half (standard deviations of logarithms).
_TRUSTED = 1300
# What a skill loses goes as the KL to the power of 1 over this: arithmetic of the embedded model lost 0.263, 0.110,
# 0.062, 0.028 and 0.014 at a KL of 0.0236, 0.0057, 0.0029, 0.0009 and 0.0002.
_STEEP = 1.6
_ERRORS = 1.0  # standard errors that a skill's retention must be above its limit by


@dataclass(frozen=True)
class Round:
    """One plan, made and measured on the verifying text: KL and top-1, each skill's retention and its lower end, and
    what parts lose by themselves, `marginal` (`whet.apply.marginal`). tokens: that it was solved on. trial: whether
    that was only a part of the text, or by a quicker solver, so that nothing of it stays but these figures."""

    plan: dict[str, Any]
    kl: float
    top1: float
    retention: dict[str, float]
    lower: dict[str, float]
    marginal: dict[str, Any]
    tokens: int = 0
    trial: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of tensors."""
        return int(self.plan["predicted"]["bytes"])

    @property
    def predicted(self) -> float:
        """KL in nats a token that was predicted."""
        return float(self.plan["predicted"]["kl"])

    def keeps(self, quality: float) -> bool:
        """Whether the KL and every skill's retention are within a quality."""
        return self.kl <= -math.log(quality) and all(lower >= quality for lower in self.lower.values())


Compress = Callable[[Path, Job], dict[str, Any]]


def rounds_of(
    folder: Path,
    job: Job,
    budget: Budget,
    scores: dict[str, Any],
    items: Sequence[Item],
    compress: Compress,
    on_event: OnEvent,
) -> list[Round]:
    """Plan, make and measure until another round is not worth it. folder: where rounds are made and kept."""

    def make(job: Job, found: dict[str, Any], alone: float, trial: bool = False) -> Round:
        job = dataclasses.replace(job, marginal=alone)
        rounds.append(_made(folder, len(rounds), job, found, items, compress, trial, on_event))
        on_event(note_event(_told(rounds[-1], len(rounds))))
        return rounds[-1]

    rounds: list[Round] = []
    if budget.kind == "quality":
        _to_quality(job, budget, scores, rounds, make)
    else:
        _to_size(job, budget, scores, rounds, make)
    return rounds


def _to_size(job: Job, budget: Budget, scores: dict[str, Any], rounds: list[Round], make: Callable[..., Round]) -> None:
    """A plan is tried, the next is made from what its parts lost, and the better of the two by that is made."""
    target = find_target(job.target)
    first = make_plan(scores, target, budget, solver=job.solver)
    trial = _trial(job)
    tried = make(trial, first, ALONE * job.tokens / max(1, trial.tokens), trial is not job)
    known = learned(scores, rounds)
    second = make_plan(known, target, budget, solver=job.solver)
    now = _reckoned(known, first["schemes"])
    another = second["schemes"] != first["schemes"] and second["predicted"]["kl"] <= (1 - _WORTH) * now
    if another or tried.trial:
        made = make(job, second if another else first, 0.0)
        if another and tried.trial and made.kl > _WORSE * tried.kl:  # on all the text it should have lost less
            make(job, first, 0.0)


def _trial(job: Job) -> Job:
    """The job that a plan is tried with: on windows from all over the text, without training; `job` itself where that
    would save little."""
    step = int(job.tokens / max(1, TRIED * job.tokens, _A_COLUMN * job.anatomy.widest))
    solver = job.effort.alone.name
    if step < 2 and solver == job.solver:
        return job
    return dataclasses.replace(job, solver=solver, solve=job.solve[:: max(1, step)])


def _to_quality(
    job: Job, budget: Budget, scores: dict[str, Any], rounds: list[Round], make: Callable[..., Round]
) -> None:
    """The limit on what is predicted is searched for."""
    target = find_target(job.target)
    known = scores
    most: float | None = None
    while len(rounds) < QUALITY_ROUNDS:
        found = make_plan(known, target, budget, solver=job.solver, most_kl=most)
        if any(found["schemes"] == one.plan["schemes"] for one in rounds):
            break
        last = make(job, found, ALONE)
        known = learned(scores, rounds)
        if last.keeps(budget.value) and last.kl >= -_NEAR * math.log(budget.value):
            break
        most = _next_limit(rounds, budget.value)
        if most is None:
            break


def _next_limit(rounds: Sequence[Round], quality: float) -> float | None:
    """The limit on predicted KL of a quality's next round, between what kept it and what did not.

    Where the last round broke it, predictions are scaled by what that measured: the KL over its limit, and of the skill
    that fell farthest below, how much may be lost over how much was. None where kept and broken are near.
    """
    kept = max((r.predicted for r in rounds if r.keeps(quality)), default=None)
    broken = min((r.predicted for r in rounds if not r.keeps(quality)), default=None)
    last = rounds[-1]
    by_kl = 0.9 * -math.log(quality) / max(last.kl, 1e-12)
    if kept is not None and broken is not None:
        if kept >= 0.7 * broken:
            return None
        middle = math.sqrt(kept * broken)
        return middle if last.keeps(quality) else max(middle, last.predicted * _allowed(last, quality))
    if kept is not None:
        return last.predicted * min(4.0, by_kl)
    return last.predicted * min(by_kl, _allowed(last, quality))


def _allowed(one: Round, quality: float) -> float:
    """What share of the predicted KL of a round that broke a quality its skills allow, at most half."""
    shares = [0.5]
    for skill, lower in one.lower.items():
        if lower < quality:
            noise = one.retention[skill] - lower
            room = max(1 - quality - noise, 0.25 * (1 - quality))
            shares.append((room / max(1 - one.retention[skill], room)) ** _STEEP)
    return min(shares)


def best_of(rounds: Sequence[Round], budget: Budget, scores: Mapping[str, Any]) -> Round | None:
    """Of a size or time the least loss, of a quality the fewest bytes, or the least time, that keep it; nothing of a
    trial stays to be chosen.

    The loss is the geometric mean of the KL that was measured of the whole and the sum of what is known of its parts
    after all rounds, which was measured on more windows: of two mixes that are nearly as good either alone is mostly
    noise.
    """
    if budget.kind == "quality":
        kept = (r for r in rounds if r.keeps(budget.value))
        if (costs := budget.costs) is not None:
            return min(kept, key=lambda r: costs.seconds(r.plan["schemes"]), default=None)
        return min(kept, key=lambda r: r.bytes, default=None)
    known = learned(scores, rounds)
    whole = [one for one in rounds if not one.trial]
    if not all(one.kl > 0 for one in whole) or not any(one.marginal for one in rounds):
        return min(whole, key=lambda r: r.kl)
    return min(whole, key=lambda r: r.kl * _reckoned(known, r.plan["schemes"]))


def learned(scores: Mapping[str, Any], rounds: Sequence[Round]) -> dict[str, Any]:
    """The scores with losses corrected by what parts lost by themselves in `rounds`, over what was predicted for them.

    A correction is of the part at the bits it was measured on; between two such it goes by bits, beyond them it stays
    as it is. It counts the more, the more tokens it was measured on, and is at most fourfold: beyond that it would be
    the noise of a loss that is next to nothing.
    """
    parts = {part["address"]: part for part in scores["parts"]}
    seen: dict[str, dict[int, float]] = defaultdict(dict)
    for one in rounds:
        for measured in one.marginal.get("parts", []):
            schemes = {a: one.plan["schemes"][a] for a in measured["addresses"]}
            told = math.fsum(parts[a]["schemes"][scheme]["kl"] for a, scheme in schemes.items())
            if told > 0 and measured["kl"] > 0:
                trust = one.marginal["tokens"] / (one.marginal["tokens"] + _TRUSTED)
                factor = min(_MOST, max(1 / _MOST, measured["kl"] / told)) ** trust
                seen |= {a: seen[a] | {parse_scheme(scheme).bits: factor} for a, scheme in schemes.items()}

    def corrected(address: str, scheme: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {**entry, "kl": entry["kl"] * _at(seen[address], parse_scheme(scheme).bits)}

    return {
        **scores,
        "parts": [
            {**part, "schemes": {s: corrected(address, s, entry) for s, entry in part["schemes"].items()}}
            for address, part in parts.items()
        ],
    }


def _at(points: Mapping[int, float], bits: int) -> float:
    """Between two of `points` by line, beyond them as at the nearest; 1 without any."""
    if not points:
        return 1.0
    low = max((b for b in points if b <= bits), default=min(points))
    high = min((b for b in points if b >= bits), default=max(points))
    if low >= high:
        return points[low]
    return points[low] + (points[high] - points[low]) * (bits - low) / (high - low)


def _reckoned(scores: Mapping[str, Any], schemes: Mapping[str, str]) -> float:
    """The predicted loss of `schemes`."""
    return math.fsum(
        part["schemes"][scheme]["kl"]
        for part in scores["parts"]
        if (scheme := schemes[part["address"]]) in part["schemes"]
    )


def _made(
    run: Path,
    number: int,
    job: Job,
    found: dict[str, Any],
    items: Sequence[Item],
    compress: Compress,
    trial: bool,
    on_event: OnEvent,
) -> Round:
    """Compress by a plan and measure, unless an earlier call did; the folder of a trial is removed."""
    folder, note = run / f"round {number}", run / f"round {number}.json"
    if note.is_file():
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["plan"]["schemes"] == found["schemes"]:
            return Round(**kept)
    result = compress(folder, _with_plan(job, found))
    retention: dict[str, float] = {}
    lower: dict[str, float] = {}
    if items and not trial:
        original = _answers(run / "original.json", job.original.path, job, items, on_event)
        lighter = _answers(None, folder, job, items, on_event)
        for entry in compare_skills(items, original, lighter, 0):
            kept_share = entry["retention"]
            if kept_share["value"] is not None:
                retention[entry["skill"]] = kept_share["value"]
                # the interval is of 95 %: half its lower arm is about a standard error
                arm = (kept_share["value"] - kept_share["interval"][0]) / 1.96
                lower[entry["skill"]] = kept_share["value"] - _ERRORS * arm
    made = Round(
        plan=found,
        kl=result.get("kl", math.nan),
        top1=result.get("top1", math.nan),
        retention=retention,
        lower=lower,
        marginal=result.get("marginal", {}),
        tokens=job.tokens,
        trial=trial,
    )
    write_json(note, dataclasses.asdict(made))
    if trial:
        shutil.rmtree(folder)
    return made


def _answers(file: Path | None, folder: Path, job: Job, items: Sequence[Item], on_event: OnEvent) -> list[Outcome]:
    """What the model in `folder` answers, remembered in `file`."""
    if file is not None and file.is_file():
        return [Outcome(**one) for one in json.loads(file.read_text(encoding="utf-8"))["outcomes"]]
    engine = open_model(folder, job.device)
    outcomes = ask(engine, items, on_event=on_event, stage="skills")
    if file is not None:
        write_json(file, {"outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]})
    return outcomes


def _with_plan(job: Job, found: dict[str, Any]) -> Job:
    checked = check_plan(found, job.anatomy, job.checkpoint.tensors, scale_dtype=scale_dtype(job.dtype))
    return dataclasses.replace(
        job,
        grids=checked.grids,
        storage=checked.storage,
        plan=checked.plan,
        notes=(*job.notes, *checked.notes, *map(Message.read, found["notes"])),
    )


def figures(one: Round) -> dict[str, Any]:
    return {
        "bytes": one.bytes,
        "tokens": one.tokens,
        "trial": one.trial,
        "predicted_kl": one.predicted,
        "measured_kl": one.kl,
        "top1": one.top1,
        "retention": one.retention,
    }


def _told(one: Round, number: int) -> Message:
    if one.trial:
        return Message(
            "round {number}, tried on {tokens:,} tokens: {bytes:,} bytes, KL {kl:.3g} (predicted {predicted:.3g})",
            number=number,
            tokens=one.tokens,
            bytes=one.bytes,
            kl=one.kl,
            predicted=one.predicted,
        )
    return Message(
        "round {number}: {bytes:,} bytes, KL {kl:.3g} (predicted {predicted:.3g}){worst}",
        number=number,
        bytes=one.bytes,
        kl=one.kl,
        predicted=one.predicted,
        worst=worst(one),
    )


def worst(one: Round) -> str:
    if not one.retention:
        return ""
    skill = min(one.lower, key=one.lower.__getitem__)
    return Message(", lowest retention {share:.3f} ({skill})", share=one.retention[skill], skill=skill)
