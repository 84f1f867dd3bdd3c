"""One run in its folder: begun or gone on with, carried out, finished."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from whet import __version__
from whet.budget import check_model, write_plan
from whet.checkpoint import disk_errors, size_on_disk, sync_folder, write_json, write_tensors
from whet.errors import UsageError
from whet.events import OnEvent, note_event
from whet.messages import Message, listed
from whet.recipe.decide import Decision
from whet.recipe.finish import finish
from whet.recipe.judging import with_transform
from whet.recipe.solving import Solver
from whet.recipe.through import round_only, solve_through
from whet.walk import Journal, alone

RUN = ".whet"
PLAN = "plan.json"


def carry_out(out: Path, decision: Decision, on_event: OnEvent) -> dict[str, Any]:
    """Do what was decided for an examined model: all of it, or what a stopped run left. Returns as `compress` does."""
    run = out / RUN
    if refuse_other_files(out, decision):
        decision.asked = same_run(run, decision)["asked"]
    else:
        _begin(run, decision)
    return go(out, decision, on_event)


def go(out: Path, decision: Decision, on_event: OnEvent) -> dict[str, Any]:
    started = time.monotonic()
    run = out / RUN
    for note in decision.notes:
        on_event(note_event(note))
    with alone(run):
        decision = with_transform(decision, run, on_event)
        journal = Journal(run)
        solver = Solver(decision, out, journal, on_event)
        verified = solve_through(decision, solver, run) if decision.solve else round_only(decision, solver)
        verified.pop("windows", None)
        summary = finish(out, decision, journal, solver, verified)
        for note in summary["notes"][len(decision.notes) :]:
            on_event(note_event(note))
        _close(run)
    return {
        "out": str(out),
        **choices(decision),
        "sizes": {"original": size_on_disk(decision.original.path), "lighter": size_on_disk(out)},
        "loads_in": "transformers" if decision.storage.container == "compressed-tensors" else "modelling file",
        **verified,
        "linears": summary["report"],
        "check": summary["check"],
        "seconds": {
            "solving": sum(entry["seconds"] for entry in journal.entries.values()),
            "this call": time.monotonic() - started,
        },
        "notes": summary["notes"],
    }


def choices(decision: Decision) -> dict[str, Any]:
    """What was chosen, as the result tells it."""
    keys = ("scheme", "embed", "solver", "transform", "repair", "target", "container", "seed", "text")
    made = {"plan": decision.plan, "dequantize": decision.storage.dequantize}
    if decision.transforms is not None:
        made["transforms"] = decision.transforms
    return {k: decision.recipe[k] for k in keys} | made


def examine(decision: Decision) -> None:
    """Read the whole original once: it must be finite, and the one that the plan was made for."""
    digest = decision.checkpoint.examine()
    if decision.plan is not None:
        check_model(decision.plan, digest)
    decision.recipe["model_sha256"] = digest


def refuse_other_files(out: Path, decision: Decision, begun: str = "recipe.json") -> bool:
    """Whether `out` holds a stopped run, as the file `begun` in its folder tells; refuses one with anything else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise UsageError("{out} is a file. Name a folder for the lighter model.", out=out)
    if out.resolve() == decision.checkpoint.path.resolve():
        raise UsageError("{out} is the original's own folder, which is never changed. Name another folder.", out=out)
    if (out / RUN / begun).is_file():
        return True
    left = [p for p in out.iterdir() if p.name != RUN]
    if left:
        raise UsageError(
            "{out} is not empty (it holds {name}). Name a new folder, or empty this one.", out=out, name=left[0].name
        )
    return False


def _begin(run: Path, decision: Decision) -> None:
    """Make the run's folder; where that fails, nothing is left of it, as there is nothing to resume yet."""
    made = next((p for p in (*reversed(run.parents), run) if not p.exists()), None)
    windows = {f"solve {i:06d}": w for i, w in enumerate(decision.solve)}
    windows |= {f"verify {i:06d}": w for i, w in enumerate(decision.verify)}
    try:
        with disk_errors(run):
            run.mkdir(parents=True, exist_ok=True)
        write_tensors(run / "windows.safetensors", windows)
        if decision.plan is not None:
            write_plan(run / PLAN, decision.plan)
        write_json(
            run / "recipe.json",
            {
                **decision.recipe,
                "asked": decision.asked,
                "notes": decision.notes,
                "fingerprint": decision.fingerprint,
                "whet": __version__,
            },
        )
    except BaseException:
        shutil.rmtree(made or run, ignore_errors=True)
        raise


def _close(run: Path) -> None:
    """Remove the run's folder, the recipe first: without it there is no run, so half a removal is no run either."""
    (run / "recipe.json").unlink()
    sync_folder(run)
    shutil.rmtree(run)


def same_run(run: Path, decision: Decision) -> dict[str, Any]:
    """What the run began with; refuses another model, text, recipe, thread count or version of whet."""
    began: dict[str, Any] = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    out = run.parent
    if began["whet"] != __version__:
        raise UsageError(
            "{out} was begun by whet {before}, this is {now}. Install that, or start anew elsewhere.",
            out=out,
            before=began["whet"],
            now=__version__,
        )
    if began["fingerprint"] == decision.fingerprint:
        return began
    now = decision.recipe
    if began["model_sha256"] != now["model_sha256"]:
        what = Message("the model {path} is not the one it began with (or has changed since)", path=now["model_path"])
    else:
        named = {k: (began.get(k), now.get(k)) for k in now if k != "model_path" and began.get(k) != now.get(k)}
        told = [
            Message("{name} was {before!r} and is {now!r}", name=name, before=before, now=after)
            for name, (before, after) in named.items()
            if name != "plan"
        ]
        told += [Message("its plan is another")] * ("plan" in named)
        what = listed(told or [Message("its text is another")], "; ")
    raise UsageError(
        "{out} holds a stopped run that cannot go on: {what}. Give what it began with, or start in a new folder.",
        out=out,
        what=what,
    )
