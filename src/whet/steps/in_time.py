"""Time as a budget: the runtime that is fast here, what its formats cost, and the finished file timed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from whet.apply.job import Job
from whet.budget import tables
from whet.budget.mix import Budget, make_plan
from whet.budget.times import Costs, parse_time
from whet.checkpoint import write_json
from whet.errors import UsageError
from whet.events import OnEvent
from whet.steps.options import AUTO, Quantize
from whet.steps.options import Budget as Asked
from whet.targets import find_target
from whet.timing.prices import costs, timed_file, timed_types
from whet.timing.twin import RUNTIME

# Plans that are written with random weights and timed; another is only made where the last was this far off its sum.
_TRIED, _NEAR = 3, 0.03


def with_runtime(asked: Quantize) -> Quantize:
    """The options with the runtime that time is measured in, where none was named or it was left to measurements."""
    if asked.target == AUTO or (asked.target is None and asked.timed):
        return asked.model_copy(update={"target": RUNTIME})
    return asked


def check_time(job: Job, asked: Asked) -> None:
    """Raises UsageError for a time that is none, or that is asked of a runtime which is not timed."""
    if asked.latency is not None:
        parse_time(asked.latency)
    if asked.speedup is not None and not asked.speedup > 0:
        raise UsageError(
            "speedup {speedup:g} is no speed: give how many times as fast as 16 bits, such as 2.", speedup=asked.speedup
        )
    if asked.timed and job.target != RUNTIME:
        raise UsageError(
            "whet plans by time for {runtime}, whose formats it measures here, and not for {target}. Give --for "
            "{runtime}, or ask for bytes (fit, bits).",
            runtime=RUNTIME,
            target=find_target(job.target).name,
        )


def time_costs(job: Job, asked: Asked, on_event: OnEvent) -> Costs | None:
    """What formats cost in time here, where time counts: measured now, or as it was kept."""
    left_open = asked.quality is not None and getattr(asked, "target", None) == AUTO
    if not asked.timed and not left_open:
        return None
    linears = [*job.anatomy.linears(), *tables(job.anatomy)]
    return costs(job.original.path, linears, False, on_event)


def corrected(folder: Path, job: Job, budget: Budget, scores: dict[str, Any]) -> Budget:
    """The budget with costs that are right for the mix that it leads to: its file is written with random weights and
    timed, and the sum corrected by that. What was found is kept in `folder`, for a run that is resumed."""
    if budget.costs is None:
        return budget
    file = folder / "time.json"
    known = budget.costs
    if file.is_file():
        factor = json.loads(file.read_text(encoding="utf-8"))["factor"]
        return dataclasses.replace(budget, costs=dataclasses.replace(known, factor=factor))
    target = find_target(job.target)
    for number in range(1, _TRIED + 1):
        schemes = make_plan(scores, target, dataclasses.replace(budget, costs=known), solver=job.solver)["schemes"]
        measured = timed_types(known, job.original.path, schemes, folder)
        if measured is None:
            break
        predicted = known.seconds(schemes)
        known = known.corrected(schemes, measured, 1 / number)
        if abs(measured / predicted - 1) < _NEAR:
            break
    write_json(file, {"factor": known.factor})
    return dataclasses.replace(budget, costs=known)


def measured_time(job: Job, budget: Budget, file: Path) -> dict[str, float] | None:
    """Seconds of a decoded token of the finished file, `now` and as it would have been when formats were measured
    (`then`); None where no time was asked for."""
    if budget.costs is None or not file.is_file():
        return None
    return timed_file(budget.costs, job.original.path, file)
