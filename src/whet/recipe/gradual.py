"""A step of a recipe in small steps: some is taken, the rest is trained, gated, and undone where it fails.

Practitioners take 10 to 15 % at a time and keep what passes. After a gate that fails the model is what it was before,
the next step is half as large, and what was hurt most is protected: the skill that fell furthest, by the questions that
were set aside for it, or else the coarsest units. Importance is measured anew on what is left each time.

Of step 1, a `prune` with a schedule, the run's folder holds for its second round

    01-prune.2.cut/       what was pruned, until it is trained
    01-prune.2.cut.json   what that told
    01-prune.2/           pruned and trained
    01-prune.2.made.json, 01-prune.2.gate.json, and in the end 01-prune/ and 01-prune.json, as of any step

Every choice follows from these files, so that a run that was killed between any two goes on the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.checkpoint import size_on_disk, sync_folder, write_json
from whet.events import OnEvent, note_event
from whet.messages import Message, to_json
from whet.recipe.schedule import Schedule
from whet.recipe.trial import HALVINGS, Judge, Planned, done, once, roll_back
from whet.steps.options import Options
from whet.steps.request import Request

_COARSEST = ("layers", "experts", "heads", "channels")
_ALL = 1e-6  # of the way that may be missing


@dataclass(frozen=True)
class Round:
    """How far a step goes: `goal` the share of the original that is gone after it, along `along` of the way. protect,
    units: options that a gate that failed has changed."""

    along: float
    goal: float
    protect: str | None = None
    units: str | None = None


def gradual_step(
    step: Planned,
    schedule: Schedule,
    folder: Path,
    source: Path,
    request: Callable[[Path, Path, Options], Request],
    judge: Judge,
    keep_failed: Path | None,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Do a step by its schedule, or what a killed run left of it; returns how it ended, as `try_step` does, with
    `schedule`: what was asked for, what was reached (shares of the original that are gone) and why it stopped.

    request: what is handed to a craft with some options, from a folder into another. The outcome is `kept` where any
    round was, whatever was reached.
    """
    ended = folder / f"{step.name}.json"
    if ended.is_file():
        return _read(ended)
    attempts: list[dict[str, Any]] = []
    now, along, gone, half = source, 0.0, 0.0, 0
    protect, units, reason = None, None, Message("all of it was taken")
    while along < 1 - _ALL:
        further = min(1.0, along + schedule.stride / 2**half)
        wanted = Round(further, schedule.share * schedule.shaped(further), protect, units)
        made = folder / f"{step.name}.{len(attempts) + 1}"
        options = _options(step.options, schedule, wanted, gone)
        attempts.append(_tried(step, schedule, wanted, made, lambda cut: request(now, cut, options), request, judge))  # noqa: B023
        gate = attempts[-1]["gate"]
        why = Message.read(gate["reason"])
        about = {"number": step.number, "craft": step.craft, "share": wanted.goal, "reason": why}
        on_event(note_event(Message("step {number}, {craft}, to {share:.1%}: {reason}", **about)))
        if gate["verdict"] == "pass":
            if now != source:
                shutil.rmtree(now, ignore_errors=True)
            now, along, gone = made, further, wanted.goal
            continue
        roll_back(made, keep_failed)
        half += 1
        if half > HALVINGS:
            least = schedule.share * schedule.stride / 2**HALVINGS
            reason = Message("steps of {share:.2%} still fail: {reason}", share=least, reason=why)
            break
        protect, units = _protected(gate, options, schedule, protect, units)
    reached = {"asked": schedule.share, "reached": gone, "reason": reason}
    return _end(step, ended, folder, None if now == source else now, attempts, reached)


def _tried(
    step: Planned,
    schedule: Schedule,
    wanted: Round,
    made: Path,
    taken: Callable[[Path], Request],
    request: Callable[[Path, Path, Options], Request],
    judge: Judge,
) -> dict[str, Any]:
    """A round: some is taken and what is left trained into `made`, and the gate asked; what is told of it."""
    cut = made.with_name(f"{made.name}.cut")

    def make() -> dict[str, Any]:
        first = once(cut.with_name(f"{cut.name}.json"), lambda: done(step.craft, taken(cut)))
        second = done("distill", request(cut, made, schedule.training))
        return {**second, "seconds": first["seconds"] + second["seconds"]}

    told = once(made.with_name(f"{made.name}.made.json"), make)
    shutil.rmtree(cut, ignore_errors=True)
    gate = once(made.with_name(f"{made.name}.gate.json"), lambda: judge(made, step.gate))
    shown: dict[str, Any] = {"remove": round(wanted.goal, 4)}
    shown |= {name: said for name, said in (("protect", wanted.protect), ("units", wanted.units)) if said}
    outcome = "kept" if gate["verdict"] == "pass" else "tried"
    return {"options": shown, "bytes": told["bytes"], "seconds": told["seconds"], "gate": gate, "outcome": outcome}


def _options(options: Options, schedule: Schedule, wanted: Round, gone: float) -> Options:
    """The step's options, for what is still to go of what is left."""
    changed: dict[str, Any] = {"remove": round((wanted.goal - gone) / (1 - gone), 6)}
    if wanted.units:
        changed["units"] = wanted.units
    if wanted.protect:
        changed |= {"protect": wanted.protect, "skills": list(schedule.questions)}
    return options.model_copy(update=changed)


def _protected(
    gate: Mapping[str, Any], options: Options, schedule: Schedule, protect: str | None, units: str | None
) -> tuple[str | None, str | None]:
    """What the next step spares: the skill that is furthest below its limit, beside those before it; where no skill is,
    the coarsest units."""
    fallen = [one for one in gate["judgements"] if one["verdict"] != "pass" and one["value"] is not None]
    for one in sorted(fallen, key=lambda one: one["value"] - one["at"]):
        if one["of"] in {question["skill"] for question in schedule.questions}:
            named = dict.fromkeys([*(protect.split(",") if protect else []), one["of"]])
            return ",".join(named), units
    left = (units or getattr(options, "units", None) or ",".join(_COARSEST)).split(",")
    coarse = next((unit for unit in _COARSEST if unit in left), None)
    rest = [unit for unit in left if unit != coarse and unit != "experts"]
    return protect, ",".join(rest) if rest else units


def _end(
    step: Planned,
    ended: Path,
    folder: Path,
    last: Path | None,
    attempts: list[dict[str, Any]],
    schedule: Mapping[str, Any],
) -> dict[str, Any]:
    adopted = folder / step.name
    if last is not None and not adopted.is_dir():
        last.replace(adopted)
        sync_folder(folder)
    verdict = attempts[-1]["gate"]["verdict"]
    failed = "skipped" if step.on_fail == "skip" else "stopped" if verdict == "fail" else "undecided"
    found = {
        "step": step.number,
        "craft": step.craft,
        "outcome": "kept" if last is not None else failed,
        "attempts": attempts,
        "schedule": {**schedule, "reason": to_json(schedule["reason"])},
        "result": {"bytes": size_on_disk(adopted)["total"]} if last is not None else {},
    }
    write_json(ended, found)
    return _read(ended)


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
