"""The step `quantize`: a model folder in, a lighter folder out.

Everything is decided and checked first, then the whole model is read once (finite? which model is it?), then a
transform is folded in, then one pass goes through embedding, blocks and the rest, each written and journalled as it is
finished, then config, card and manifest. `whet.json` comes last: a folder that has it is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from whet import __version__
from whet.apply.job import Job
from whet.apply.material import with_text
from whet.apply.passes import solve_through, without_text
from whet.apply.run import Run
from whet.apply.shards import Shards
from whet.budget import check_model, parse_size
from whet.budget.mix import Budget
from whet.checkpoint import Checkpoint, size_on_disk
from whet.events import OnEvent, note_event
from whet.measure.items import Item, parse_item, read_skills
from whet.messages import Message
from whet.steps.budget import budget_needs, budget_of, check_budget
from whet.steps.decide import Material, decide
from whet.steps.estimate import check_room, estimate
from whet.steps.finish import finish
from whet.steps.options import Quantize
from whet.steps.request import Request, with_texts
from whet.steps.search import search
from whet.strict import checked
from whet.transforms.judge import with_transform
from whet.transforms.make import check_transform


def quantize(
    model: str | Path,
    out: str | Path,
    asked: Quantize,
    *,
    seed: int,
    device: str,
    dry_run: bool,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Write a lighter copy of `model` into the folder `out`; returns what `whet.compress` does."""
    asked.check()
    run = Run(out)
    items = read_skills(asked.skills) if asked.skills is not None else []
    job = decide(model, asked, seed=seed, device=device)
    budget = budget_of(job.checkpoint, asked)
    if budget is not None:
        check_budget(job, budget)
    run.check_free(job.checkpoint.path)
    job = check_transform(job)
    needs = estimate(job) if budget is None else budget_needs(job, budget)
    on_event({"event": "plan", **needs})
    check_room(run.out, needs)
    if dry_run:
        return {"dry_run": True, "out": str(out), **job.choices(), **needs, "notes": list(job.notes)}
    job = with_text(examined(job), asked.samples, on_event)
    return _carried_out(run, job, budget, items, recipe_of(model, asked, job), on_event)


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
    """Half the way from the original: of a budget the bytes, bits or quality in the middle. A scheme has no half."""
    if options.quality is not None:
        return options.model_copy(update={"quality": (1 + options.quality) / 2})
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
    record = request["record"]
    torch.set_num_threads(record["threads"])
    (step,) = request["recipe"]["steps"]
    options = step["quantize"] | ({"plan": str(run.plan())} if run.plan() else {})
    asked = checked(Quantize, options, str(run.out))
    solve, verify = run.windows()
    job = decide(
        request["model"],
        asked,
        seed=record["seed"],
        device=record["device"],
        material=Material(solve, verify, record["text"], 0, record["synthetic"]),
        compute=getattr(torch, record["compute"]),
    )
    job = examined(dataclasses.replace(job, notes=tuple(map(Message.read, request["notes"]))))
    budget = None if request["budget"] is None else Budget(**request["budget"])
    items = [parse_item(one, Message("skill item {number}", number=i)) for i, one in enumerate(request["items"])]
    return _carried_out(run, job, budget, items, request["recipe"], on_event)


def _carried_out(
    run: Run,
    job: Job,
    budget: Budget | None,
    items: Sequence[Item],
    recipe: Mapping[str, Any],
    on_event: OnEvent,
) -> dict[str, Any]:
    """Begin the run or go on with it, and see it through."""
    request = request_of(job, recipe, budget, items)
    with run.opened(request, job.solve, job.verify, job.plan) as began:
        if budget is None:
            return _made(run, job, began["recipe"], on_event)

        def compress(folder: Path, planned: Job) -> dict[str, Any]:
            return _carried_out(Run(folder), planned, None, [], began["recipe"], on_event)

        return search(run, job, budget, items, compress, on_event)


def _made(run: Run, job: Job, recipe: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Do what was decided, or what a stopped run left of it, and close the run."""
    started = time.monotonic()
    for note in job.notes:
        on_event(note_event(note))
    job = with_transform(job, run.folder, on_event)
    shards = Shards(job, run.out, run.folder, on_event)
    verified = solve_through(job, shards) if job.solve else without_text(job, shards)
    verified.pop("windows", None)
    summary = finish(job, shards, verified, recipe)
    for note in summary["notes"][len(job.notes) :]:
        on_event(note_event(note))
    run.close()
    return {
        "out": str(run.out),
        **job.choices(),
        "sizes": {"original": size_on_disk(job.original.path), "lighter": size_on_disk(run.out)},
        "loads_in": "transformers" if job.storage.container == "compressed-tensors" else "modelling file",
        **verified,
        "linears": summary["report"],
        "check": summary["check"],
        "seconds": {
            "solving": sum(entry["seconds"] for entry in shards.journal.entries.values()),
            "this call": time.monotonic() - started,
        },
        "notes": summary["notes"],
    }


def examined(job: Job) -> Job:
    """`job` once the whole original was read: it must be finite, and the one that the plan was made for."""
    digest = job.checkpoint.examine()
    if job.plan is not None:
        check_model(job.plan, digest)
    return dataclasses.replace(job, sha256=digest)


def recipe_of(model: str | Path, asked: Quantize, job: Job) -> dict[str, Any]:
    """The recipe that does the same, every default filled in. The folder it goes into is not named, nor is a model
    whose path is absolute."""
    update = {"scheme": job.scheme, "solver": job.solver, "synthetic": job.synthetic, "target": job.target}
    options = Quantize.model_construct(**asked.model_dump(include=set(Quantize.model_fields)) | update).document()
    top = {} if Path(model).is_absolute() else {"model": str(model)}
    return {"version": 1, **top, "seed": job.seed, "steps": [{"quantize": options}]}


def request_of(
    job: Job, recipe: Mapping[str, Any], budget: Budget | None = None, items: Sequence[Item] = ()
) -> dict[str, Any]:
    """What a run depends on, as it is kept beside it."""
    asked = {
        "budget": None if budget is None else dataclasses.asdict(budget),
        "items": [item.record() for item in items],
    }
    whole = [job.fingerprint(), asked]
    return {
        "whet": __version__,
        "step": "quantize",
        "model": str(job.original.path.resolve()),
        "record": job.record(),
        "recipe": recipe,
        "notes": list(job.notes),
        **asked,
        "fingerprint": hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=False).encode()).hexdigest(),
    }
