"""The step `quantize`: a model folder in, a lighter folder out, its weights rounded.

What is said by a scheme or a plan is one pass (`driver`); a budget is searched for, each of its rounds such a pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whet.apply.job import Job
from whet.apply.run import Run
from whet.budget import parse_size
from whet.budget.mix import Budget
from whet.checkpoint import Checkpoint, size_on_disk
from whet.errors import UsageError
from whet.events import OnEvent, Way
from whet.formats.graphs.write import must_be_writable
from whet.measure.items import Item, parse_item, read_skills
from whet.messages import Message
from whet.paths import check_out
from whet.steps.budget import budget_needs, budget_of, check_budget
from whet.steps.course import budget_course, course, round_course
from whet.steps.decide import decide
from whet.steps.driver import announce, carry_out, examined, job_of, planned, request_of, step_recipe, weights_checked
from whet.steps.estimate import estimate
from whet.steps.in_time import check_time, time_costs, with_runtime
from whet.steps.material import with_text
from whet.steps.options import Quantize
from whet.steps.precisions import decide_all, make_all, needs_of, resume_all
from whet.steps.request import Request, with_texts
from whet.steps.search import search
from whet.transforms.make import check_transform

NO_BUDGET: dict[str, Any] = {"budget": None, "items": []}  # what a request says of a run that is one pass


def quantize(
    model: str | Path,
    out: str | Path,
    asked: Quantize,
    *,
    seed: int,
    device: str,
    dry_run: bool,
    check_weights: bool = False,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Write a lighter copy of `model` into the folder `out`; returns what `whet.compress` does."""
    asked.check()
    if check_weights and not dry_run:
        raise UsageError("check_weights goes with dry_run: a run reads and checks every weight anyway. Leave it out.")
    check_out(out, model)
    run = Run(out)
    on_event = run.telling(on_event)
    items = read_skills(asked.skills) if asked.skills is not None else []
    asked, given = with_runtime(asked), asked
    if asked.precisions is not None:
        return _several(run, model, asked, dry_run, on_event, seed=seed, device=device)
    job = decide(model, asked, seed=seed, device=device)
    check_time(job, given)
    budget = budget_of(job.checkpoint, given, time_costs(job, given, on_event))
    if budget is not None:
        check_budget(job, budget)
    run.check_free(job.checkpoint.path)
    job = check_transform(job)
    needs = estimate(job) if budget is None else budget_needs(job, budget)
    announce(run, needs, on_event)
    if dry_run:
        if check_weights:
            job = weights_checked(job, on_event)
        return planned(run, job, needs)
    if job.storage.graph:
        must_be_writable(job.target)
    way = _way(job, budget, items, on_event)
    job = with_text(examined(job, way), way)
    return _carried_out(run, job, budget, items, recipe_of(model, asked, job), way)


def _several(
    run: Run, model: str | Path, asked: Quantize, dry_run: bool, on_event: OnEvent, **more: Any
) -> dict[str, Any]:
    """The same of several precisions in one folder."""
    jobs = decide_all(model, asked, **more)
    first = next(iter(jobs.values()))
    run.check_free(first.checkpoint.path)
    needs = needs_of(jobs)
    announce(run, needs, on_event)
    if dry_run:
        return planned(run, first, needs) | {"precisions": list(jobs)}
    scheme = {"scheme": first.scheme, "embed": first.embed}
    return make_all(
        run, jobs, recipe_of(model, asked.model_copy(update=scheme), first), asked.precisions or "", on_event
    )


def recipe_of(model: str | Path, asked: Quantize, job: Job) -> dict[str, Any]:
    """The recipe that makes the same of `model`, with what was decided on the way."""
    decided = {
        "scheme": job.scheme,
        "solver": job.solver,
        "synthetic": job.synthetic,
        "target": job.target,
        "importance": None if job.sparsity is None else job.sparsity.importance,
    }
    return step_recipe(model, job, Quantize, asked, **decided)


def run(request: Request) -> dict[str, Any]:
    """The step of a recipe: as `quantize`, on the recipe's text where the step names none."""
    options = with_texts(request.options.model_dump(exclude={"preset"}), request.texts)
    if request.options.budgeted and options["skills"] is None and request.texts.items:
        options["skills"] = [item.record() for item in request.texts.items]
    return quantize(
        request.source,
        request.out,
        Quantize.of("quantize", **options),
        seed=request.seed,
        device=request.device,
        dry_run=request.dry_run,
        on_event=request.on_event,
    )


def check(options: Quantize) -> None:
    """Raises UsageError for options that exclude each other."""
    options.check()


def halved(options: Quantize, original: Path) -> Quantize | None:
    """Half the way from the original: of a budget the bytes, bits, quality or speedup in the middle. A scheme has no
    half, and neither has a latency."""
    if options.quality is not None:
        return options.model_copy(update={"quality": (1 + options.quality) / 2})
    if options.speedup is not None:
        return options.model_copy(update={"speedup": (1 + options.speedup) / 2})
    checkpoint = Checkpoint(original)
    if options.fit is not None:
        whole = size_on_disk(checkpoint.path)["weights"]
        return options.model_copy(update={"fit": (parse_size(options.fit, whole) + whole) // 2})
    if options.bits is not None:
        count = sum(math.prod(info.shape) for info in checkpoint.stored.values())
        return options.model_copy(update={"bits": (options.bits + 8 * checkpoint.nbytes / count) / 2})
    return None


def resume_quantize(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    if request.get("precisions") is not None:
        return resume_all(run, request, on_event)
    job = job_of(run, request, Quantize, decide)
    budget = None if request["budget"] is None else Budget.read(request["budget"])
    items = [parse_item(one, Message("skill item {number}", number=i)) for i, one in enumerate(request["items"])]
    way = _way(job, budget, items, run.telling(on_event))
    return _carried_out(run, examined(job, way), budget, items, request["recipe"], way)


def _way(job: Job, budget: Budget | None, items: Sequence[Item], on_event: OnEvent) -> Way:
    return Way(on_event, course(job) if budget is None else budget_course(job, budget, items))


def _carried_out(
    run: Run,
    job: Job,
    budget: Budget | None,
    items: Sequence[Item],
    recipe: Mapping[str, Any],
    way: Way,
) -> dict[str, Any]:
    """Begin the run or go on with it, and see it through."""
    if budget is None:
        return carry_out(run, job, recipe, way, **NO_BUDGET)
    beside: dict[str, Any] = {"budget": budget.record(), "items": [item.record() for item in items]}
    with run.opened(request_of(job, recipe, **beside), job.solve, job.verify, job.plan) as began:

        def compress(folder: Path, mixed: Job) -> dict[str, Any]:
            own = Way(way.part("round"), round_course(mixed))
            return carry_out(Run(folder), mixed, began["recipe"], own, files=began["files"], **NO_BUDGET)

        return search(run, job, budget, items, compress, way)
