"""The step `dynamic`: a model folder and text in, a folder out that decides at run time how much of the model is used.

Its weights are the model's (trained where that is asked for), so whatever loads the model loads the folder, and runs
all of it. Beside them lies what whet decides by: who chooses the channels of the feed-forward for a prompt, or maps at
exits and the threshold from which on a token leaves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whet.apply.run import Run
from whet.checkpoint import check_files
from whet.errors import GateError
from whet.events import OnEvent, Part, Stage, Way, note_event
from whet.messages import Message
from whet.paths import check_out
from whet.steps.driver import announce, kept_windows
from whet.steps.dynamic_files import write_folder
from whet.steps.dynamic_plan import Plan, decide, parse_active, parse_agreement
from whet.steps.dynamic_work import Work
from whet.steps.material import Material
from whet.steps.options import Dynamic
from whet.steps.request import Request, with_texts
from whet.strict import checked

_READING = 2e-9  # seconds a byte of weights that are hashed and loaded


def dynamic(
    model: str | Path, out: str | Path, asked: Dynamic, *, seed: int, device: str, dry_run: bool, on_event: OnEvent
) -> dict[str, Any]:
    """Train what decides of `model`, into the folder `out`; returns what `whet.dynamic` does."""
    check(asked)
    check_out(out, model)
    run = Run(out)
    on_event = run.telling(on_event)
    plan = decide(model, asked, seed=seed, device=device)
    run.check_free(plan.checkpoint.path)
    announce(run, plan.needs(), on_event)
    if dry_run:
        return {"dry_run": True, "out": str(out), **_choices(plan), **plan.needs(), "notes": list(plan.notes)}
    return _carry_out(run, plan, on_event)


def run(request: Request) -> dict[str, Any]:
    """The step of a recipe."""
    return dynamic(
        request.source,
        request.out,
        Dynamic.of("dynamic", **with_texts(request.options.model_dump(), request.texts)),
        seed=request.seed,
        device=request.device,
        dry_run=request.dry_run,
        on_event=request.on_event,
    )


def check(options: Dynamic) -> None:
    """Raises UsageError for options that cannot be, without a model."""
    options.check()
    if options.active is not None:
        parse_active(options.active)
    if options.agreement is not None:
        parse_agreement(options.agreement)


def resume_dynamic(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    record = request["record"]
    torch.set_num_threads(record["threads"])
    solve, verify = kept_windows(run)
    asked = checked(Dynamic, dict(request["asked"]), str(run.out))
    plan = decide(
        request["model"],
        asked,
        seed=record["seed"],
        device=record["device"],
        material=Material(solve, verify, record["text"]),
    )
    notes = tuple(map(Message.read, request["notes"]))
    plan = dataclasses.replace(plan, notes=notes, base=request["base"], steps=record["steps"])
    return _carry_out(run, plan, run.telling(on_event))


def _carry_out(run: Run, plan: Plan, on_event: OnEvent) -> dict[str, Any]:
    """Begin the run or go on with it, and see it through."""
    started = time.monotonic()
    reading, needs = _READING * plan.checkpoint.nbytes, plan.needs()
    parts = [Part("read", reading), Part("train", needs["seconds"])]
    parts += [Part("calibrate", needs["seconds"] / 10)] * (plan.kind == "exits")
    way = Way(on_event, [*parts, Part("finish", 1 + reading)])
    check_files(plan.checkpoint.path, way)
    stage = Stage(way, "read", len(plan.checkpoint.stored))
    plan = dataclasses.replace(plan, digest=plan.checkpoint.examine(lambda _: stage.step()))
    work = Work(plan)
    with run.opened(plan.request(), plan.solve, plan.verify) as began:
        for note in plan.notes:
            way(note_event(note))
        try:
            result, said = work.done(run, way)
        except GateError:
            run.close()  # nothing is left to go on with, so another agreement can be asked for
            with contextlib.suppress(OSError):
                run.out.rmdir()
            raise
        written = write_folder(run.out, plan, work, result, said, began["files"], way)
        run.close()
    seconds = {"training": result["seconds"], "this call": time.monotonic() - started}
    return {"out": str(run.out), **_choices(plan), **written, "seconds": seconds}


def _choices(plan: Plan) -> dict[str, Any]:
    channels = {"active": list(plan.counts), "joint": plan.asked.joint}
    exits = {"exits": list(plan.after), "agreement": plan.agreement}
    return {
        "kind": plan.kind,
        **(channels if plan.kind == "channels" else exits),
        "steps": plan.steps,
        "learning_rate": plan.rate,
    }
