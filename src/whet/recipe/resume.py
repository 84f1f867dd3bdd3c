"""`resume` and `status`: a run that was stopped, gone on with or looked at."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from whet.apply.run import Run
from whet.checkpoint import MANIFEST
from whet.errors import UsageError, verb
from whet.events import OnEvent, ignore
from whet.recipe.runner import resume_run
from whet.steps.alone import leave_file
from whet.steps.distill import resume_distill
from whet.steps.dynamic import resume_dynamic
from whet.steps.heal import resume_heal
from whet.steps.masks import resume_masks
from whet.steps.merge import resume_merge
from whet.steps.prune import resume_prune
from whet.steps.quantize import resume_quantize
from whet.steps.slice import resume_slice
from whet.steps.tune import resume_tune
from whet.walk import is_locked

_RESUMES = {
    "recipe": resume_run,
    "quantize": resume_quantize,
    "masks": resume_masks,
    "merge": resume_merge,
    "prune": resume_prune,
    "slice": resume_slice,
    "distill": resume_distill,
    "dynamic": resume_dynamic,
    "heal": resume_heal,
    "tune": resume_tune,
}


@verb
def resume(out: str | Path, *, on_event: OnEvent = ignore) -> dict[str, Any]:
    """Go on with the run that was stopped in `out`; the result has the bytes an undisturbed run would have had.

    Raises UsageError where there is no run to go on with, or where the model it began with has changed.
    """
    run = Run(out)
    request = run.request()
    return leave_file(_RESUMES[request["step"]](run, request, on_event))


@verb
def status(out: str | Path) -> dict[str, Any]:
    """What was done in `out`, what is running, and how long it will still take, without touching anything.

    Returns `state` (`running`, `stopped`, `finished`), `steps` of a recipe with their outcomes, `now` (what was said
    last: `step`, `stage`, `unit`, `done`, `of`; of all of it `whole`, the share that is done, and `seconds_left`; and
    `seconds_ago`; None before anything was) and, of a finished run, its `verdict`. Raises UsageError where `out` holds
    no run and no finished folder.
    """
    run = Run(out)
    if not run.begun:
        return _finished(run.out)
    request = run.request()
    state = "running" if is_locked(run.folder) else "stopped"
    steps: list[dict[str, Any]] = []
    current: str | None = None
    if request["step"] == "recipe":
        for name in (key for key in request["record"] if key[:2].isdigit()):
            file = run.folder / f"{name}.json"
            ended = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
            tries = len(list(run.folder.glob(f"{name}.*.made.json")))
            waiting = "waiting" if current is not None else "running" if state == "running" else "stopped run"
            steps.append({"step": name, "outcome": waiting if ended is None else ended["outcome"], "tries": tries})
            current = current or (name if ended is None else None)
    told = run.progress()
    now = None
    if told is not None:
        ago = time.time() - told.pop("time")
        left = told["seconds_left"]
        told["seconds_left"] = None if left is None or state == "stopped" else max(0.0, left - ago)
        now = {"step": current or request["step"], **told, "seconds_ago": ago}
    return {"out": str(run.out), "state": state, "steps": steps, "now": now}


def _finished(out: Path) -> dict[str, Any]:
    about = out / "run.json"
    if not about.is_file() and not (out / MANIFEST).is_file():
        raise UsageError(
            "{out} holds no run of whet, stopped or finished. Give the folder that a run writes to.", out=out
        )
    found = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {"steps": [], "verdict": None}
    steps = [
        {"step": f"{one['step']:02d}-{one['craft']}", "outcome": one["outcome"], "tries": len(one["attempts"])}
        for one in found["steps"]
    ]
    return {"out": str(out), "state": "finished", "steps": steps, "now": None, "verdict": found["verdict"]}
