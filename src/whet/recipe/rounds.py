"""Rounds of a budget's run: a plan made and measured, and what to plan next from that."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.budget import check_plan, plan_hash
from whet.budget.mix import Budget, make_plan
from whet.checkpoint import write_json
from whet.engines.torch import open_model
from whet.events import OnEvent
from whet.measure.skills import Item, Outcome, compare_skills
from whet.measure.skills import score as ask
from whet.recipe.decide import Decision, scale_dtype
from whet.recipe.running import carry_out
from whet.targets import find_target

ROUNDS = 2  # of a size: the plan, and one from what was measured on it
QUALITY_ROUNDS = 6  # of a quality: its limit is searched for
_WORTH = 0.03  # predicted gain below which another round is not worth its time
_NEAR = 0.8  # a quality's round that uses so much of its limit is good enough
_ERRORS = 1.0  # standard errors that a skill's retention must be above its limit by


@dataclass(frozen=True)
class Round:
    """One plan, made and measured on the verifying text: KL and top-1, and each skill's retention and its lower end."""

    plan: dict[str, Any]
    kl: float
    top1: float
    retention: dict[str, float]
    lower: dict[str, float]
    by_part: dict[str, float]

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


def search(
    run: Path,
    decision: Decision,
    budget: Budget,
    scores: dict[str, Any],
    items: Sequence[Item],
    on_event: OnEvent,
) -> list[Round]:
    """Plan and measure until another round is not worth it."""
    target = find_target(decision.recipe["target"])
    solver = decision.recipe["solver"]
    rounds: list[Round] = []
    factors: dict[str, float] = {}
    most: float | None = None
    for number in range(QUALITY_ROUNDS if budget.kind == "quality" else ROUNDS):
        found = make_plan(scores, target, budget, solver=solver, factors=factors, most_kl=most)
        if any(found["schemes"] == one.plan["schemes"] for one in rounds):
            break
        if rounds and budget.kind != "quality":
            now = _reckoned(scores, rounds[-1].plan["schemes"], factors)
            if found["predicted"]["kl"] > (1 - _WORTH) * now:
                break
        rounds.append(_made(run / f"round {number}", decision, found, items, run, on_event))
        last = rounds[-1]
        on_event({"event": "note", "message": _told(last, number)})
        factors = _learned(rounds)
        if budget.kind != "quality":
            continue
        if last.keeps(budget.value) and last.kl >= -_NEAR * math.log(budget.value):
            break
        most = _next_limit(rounds, budget.value)
        if most is None:
            break
    return rounds


def _next_limit(rounds: Sequence[Round], quality: float) -> float | None:
    """The limit on predicted KL of a quality's next round, between what kept it and what did not.

    Predictions are scaled by what the last round measured over what it predicted. None where kept and broken are near.
    """
    kept = max((r.predicted for r in rounds if r.keeps(quality)), default=None)
    broken = min((r.predicted for r in rounds if not r.keeps(quality)), default=None)
    last = rounds[-1]
    if broken is None:
        return last.predicted * min(4.0, 0.95 * -math.log(quality) / max(last.kl, 1e-12))
    if kept is None:
        by_kl = 0.9 * -math.log(quality) / max(last.kl, 1e-12)
        return last.predicted * min(by_kl, 0.35)
    return None if kept >= 0.7 * broken else math.sqrt(kept * broken)


def best_of(rounds: Sequence[Round], budget: Budget) -> Round | None:
    """Of a size the least KL, of a quality the fewest bytes that keep it."""
    if budget.kind == "quality":
        return min((r for r in rounds if r.keeps(budget.value)), key=lambda r: r.bytes, default=None)
    return min(rounds, key=lambda r: r.kl)


def _learned(rounds: Sequence[Round]) -> dict[str, float]:
    """What losses were over what was predicted for them, by part, from the last round that had it.

    A correction beyond fourfold would be the noise of a loss that is next to nothing.
    """
    factors: dict[str, float] = {}
    for one in rounds:
        for address, paid in one.by_part.items():
            before = one.plan["predicted"]["by_part"][address] / factors.get(address, 1.0)
            if before > 0:
                factors[address] = min(4.0, max(0.25, paid / before))
    return factors


def _reckoned(scores: Mapping[str, Any], schemes: Mapping[str, str], factors: Mapping[str, float]) -> float:
    """The loss of `schemes` with corrected predictions."""
    return math.fsum(
        factors.get(part["address"], 1.0) * part["schemes"][scheme]["kl"]
        for part in scores["parts"]
        if (scheme := schemes[part["address"]]) in part["schemes"]
    )


def _made(
    folder: Path, decision: Decision, found: dict[str, Any], items: Sequence[Item], run: Path, on_event: OnEvent
) -> Round:
    """Compress by a plan and measure, unless an earlier call did."""
    note = folder.parent / f"{folder.name}.json"
    if note.is_file():
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["plan"]["schemes"] == found["schemes"]:
            return Round(**kept)
    result = carry_out(folder, _with_plan(decision, found), on_event)
    retention: dict[str, float] = {}
    lower: dict[str, float] = {}
    if items:
        original = _answers(run / "original.json", decision.checkpoint.path, decision, items, on_event)
        lighter = _answers(None, folder, decision, items, on_event)
        for entry in compare_skills(items, original, lighter, 0):
            kept_share = entry["retention"]
            if kept_share["value"] is not None:
                retention[entry["skill"]] = kept_share["value"]
                # the interval is of 95 %: half its lower arm is about a standard error
                arm = (kept_share["value"] - kept_share["interval"][0]) / 1.96
                lower[entry["skill"]] = kept_share["value"] - _ERRORS * arm
    by_part = {address: line["kl"] for address, line in result["linears"].items() if "kl" in line}
    made = Round(found, result.get("kl", math.nan), result.get("top1", math.nan), retention, lower, by_part)
    write_json(note, dataclasses.asdict(made))
    return made


def _answers(
    file: Path | None, folder: Path, decision: Decision, items: Sequence[Item], on_event: OnEvent
) -> list[Outcome]:
    """What the model in `folder` answers, remembered in `file`."""
    if file is not None and file.is_file():
        return [Outcome(**one) for one in json.loads(file.read_text(encoding="utf-8"))["outcomes"]]
    engine = open_model(folder, decision.device)
    outcomes = ask(engine, items, on_event=on_event, stage="skills")
    if file is not None:
        write_json(file, {"outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]})
    return outcomes


def _with_plan(decision: Decision, found: dict[str, Any]) -> Decision:
    checked = check_plan(found, decision.anatomy, decision.checkpoint.tensors, scale_dtype=scale_dtype(decision.dtype))
    recipe = decision.recipe | {
        "scheme": None,
        "embed": None,
        "plan": plan_hash(checked.plan),
        "container": checked.storage.container,
    }
    return dataclasses.replace(
        decision,
        recipe=recipe,
        grids=checked.grids,
        storage=checked.storage,
        plan=checked.plan,
        notes=[*decision.notes, *checked.notes, *found["notes"]],
    )


def figures(one: Round) -> dict[str, Any]:
    return {
        "bytes": one.bytes,
        "predicted_kl": one.predicted,
        "measured_kl": one.kl,
        "top1": one.top1,
        "retention": one.retention,
    }


def _told(one: Round, number: int) -> str:
    return f"round {number + 1}: {one.bytes:,} bytes, KL {one.kl:.4f} (predicted {one.predicted:.4f}){worst(one)}"


def worst(one: Round) -> str:
    if not one.retention:
        return ""
    skill = min(one.lower, key=one.lower.__getitem__)
    return f", lowest retention {one.retention[skill]:.3f} ({skill})"
