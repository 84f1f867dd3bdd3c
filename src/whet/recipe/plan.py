"""`plan`: the best mix of schemes for a budget, as predicted."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from whet.budget import write_plan
from whet.budget.mix import make_plan
from whet.errors import UsageError, verb
from whet.events import OnEvent, Part, Stage, Way, ignore
from whet.paths import check_output
from whet.steps.budget import budget_of, check_possible, offers
from whet.steps.course import reading, scoring
from whet.steps.decide import decide
from whet.steps.driver import examined
from whet.steps.in_time import check_time, corrected, time_costs, with_runtime
from whet.steps.options import Budget, Quantize
from whet.steps.score import score
from whet.steps.verbs import Plan, takes
from whet.targets import find_target


@verb
@takes(Plan)
def plan(
    model: str | Path, out: str | Path | None = None, *, on_event: OnEvent = ignore, **options: Any
) -> dict[str, Any]:
    """The best mix of schemes for a budget, as predicted (`whet.budget.plan`); written to the file `out` if given.

    Exactly one of fit (bytes of the weight files, `400MB`, or `25%` of the original's), bits (stored bits a parameter,
    everything counted), quality (a share q of the original's: predicted KL at most −ln q), and latency and speedup,
    which are measured on this machine first (`whet.hardware`). Nothing is compressed:
    `compress` with the same budget also measures and plans again. Raises UsageError with the smallest possible budget
    where this one cannot be met.
    """
    started = time.monotonic()
    asked = Plan.of("plan", **options)
    given = [name for name in Budget.model_fields if getattr(asked, name) is not None]
    if len(given) != 1:
        raise UsageError(
            "A plan needs one budget, {count} were given. Give one of fit (400MB, 25%), bits (3.5), quality (0.98), "
            "latency (30ms) and speedup (2).",
            count=len(given),
        )
    quantize = Quantize.of(
        "plan", **{name: getattr(asked, name) for name in Plan.model_fields if name in Quantize.model_fields}
    )
    quantize.check()
    if out is not None:
        check_output(out, model, asked.text)
    quantize = with_runtime(quantize)
    job = decide(model, quantize, seed=asked.seed, device=asked.device)
    check_time(job, asked)
    budget = budget_of(job.checkpoint, asked, time_costs(job, asked, on_event))
    assert budget is not None
    check_possible(job, budget)
    way = Way(on_event, [reading(job.checkpoint), scoring(job), Part("plan", 1)])
    job = examined(job, way)
    scores = score(job, offers(job), seed=job.seed, on_event=way)
    with tempfile.TemporaryDirectory() as scratch:
        budget = corrected(Path(scratch), job, budget, scores)
    found = make_plan(scores, find_target(job.target), budget, solver=job.solver)
    if out is not None:
        write_plan(out, found)
    Stage(way, "plan", 1).step()
    return {**found, "seconds": time.monotonic() - started}
