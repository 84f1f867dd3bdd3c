"""What every step that works a model through block by block has in common: a job in, a folder out.

Steps decide what to do and check it; from there on a run is begun or gone on with, the whole model is read once
(finite? which model is it?), a transform is folded in, one pass goes through embedding, blocks and the rest, each
written and journalled as it is finished, then config, card and manifest. `whet.json` comes last: a folder that has it
is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from whet import __version__
from whet.apply.job import Job, compute_type, model_name
from whet.apply.outliers import with_shares
from whet.apply.overflow import refuse_overflow
from whet.apply.passes import solve_through, without_text
from whet.apply.run import Run
from whet.apply.shards import Shards
from whet.apply.spikes import with_spikes
from whet.budget import check_model
from whet.checkpoint import check_files, copied_files, sha256, size_on_disk
from whet.errors import UsageError
from whet.events import OnEvent, Stage, note_event
from whet.messages import Message
from whet.steps.estimate import check_room
from whet.steps.finish import finish
from whet.steps.material import Material
from whet.steps.options import Options
from whet.steps.original import Original
from whet.strict import checked
from whet.targets import Storage
from whet.transforms.judge import with_transform

Decide = Callable[..., Job]
O = TypeVar("O", bound=Options)  # noqa: E741


def announce(run: Run, needs: Mapping[str, Any], on_event: OnEvent) -> None:
    """Tell what a run will take. Raises MachineError where the machine does not have it."""
    on_event({"event": "plan", **needs})
    check_room(run.out, dict(needs))


def planned(run: Run, job: Job, needs: Mapping[str, Any]) -> dict[str, Any]:
    """What a dry run returns."""
    return {"dry_run": True, "out": str(run.out), **job.choices(), **needs, "notes": list(job.notes)}


def examined(job: Job, on_event: OnEvent) -> Job:
    """`job` once the whole original was read: it must be finite, what whet wrote if whet wrote it, and the one that the
    plan was made for."""
    check_files(job.original.path, on_event)
    stage = Stage(on_event, "read", len(job.checkpoint.stored))
    digest = job.checkpoint.examine(lambda _: stage.step())
    if job.plan is not None:
        check_model(job.plan, digest)
    return dataclasses.replace(job, sha256=digest)


def weights_checked(job: Job, on_event: OnEvent) -> Job:
    """`job` with a note that every weight of the original was read and is finite. Raises UsageError where one is not,
    or where what whet wrote was changed since."""
    job = examined(job, on_event)
    count = len(job.checkpoint.stored)
    note = Message("all {count} tensors were read: no weight is NaN or infinite", count=count)
    return dataclasses.replace(job, notes=(*job.notes, note))


def dense_job(
    opened: Original, step: str, place: str, seed: int, material: Material, compute: torch.dtype | None, **what: Any
) -> Job:
    """The job of a step that leaves the model dense, for transformers. place: the device. compute: as for `decide`.
    what: the job's other fields, each in place of what is usual in such a step."""
    usual: dict[str, Any] = {
        "grids": {},
        "solver": "nearest",
        "storage": Storage("dense", dequantize=False, reason=""),
        "target": "transformers",
    }
    return Job(
        checkpoint=opened.checkpoint,
        anatomy=opened.parts,
        name=model_name(opened.checkpoint.path.resolve()),
        dtype=opened.dtype,
        compute=compute or compute_type(opened.dtype, place),
        device=place,
        seed=seed,
        solve=material.solve,
        verify=material.verify,
        to_write=material.to_write,
        text=material.about,
        card=opened.card,
        step=step,
        **usual | what,
    )


def step_recipe(model: str | Path, job: Job, kind: type[Options], asked: Options, **decided: Any) -> dict[str, Any]:
    """The recipe that does the same, every default filled in. The folder it goes into is not named, nor is a model
    whose path is absolute. kind: the options of the step. decided: those that were left open."""
    options = kind.model_construct(**asked.model_dump(include=set(kind.model_fields)) | decided).document()
    top = {} if Path(model).is_absolute() else {"model": str(model)}
    return {"version": 1, **top, "seed": job.seed, "steps": [{job.step: options}]}


def request_of(
    job: Job, recipe: Mapping[str, Any], files: Mapping[str, str] | None = None, **beside: Any
) -> dict[str, Any]:
    """What a run depends on, as it is kept beside it. files: those of the original that are copied, with their SHA-256,
    where they are known already. beside: what it depends on that the job does not know."""
    if files is None:
        files = {name: sha256(file) for name, file in copied_files(job.original.path).items()}
    whole = [job.fingerprint(), files, beside]
    return {
        "whet": __version__,
        "step": job.step,
        "model": str(job.original.path.resolve()),
        "record": job.record(),
        "recipe": recipe,
        "notes": list(job.notes),
        "files": files,
        **beside,
        "fingerprint": hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=False).encode()).hexdigest(),
    }


def job_of(run: Run, request: Mapping[str, Any], kind: type[O], decide: Decide) -> Job:
    """The job of a stopped run, from what it began with, before the original is read. kind: its options. decide: what
    makes them a job."""
    record = request["record"]
    torch.set_num_threads(record["threads"])
    (step,) = request["recipe"]["steps"]
    options = step[request["step"]] | ({"plan": str(run.plan())} if run.plan() else {})
    solve, verify = kept_windows(run)
    job = decide(
        request["model"],
        checked(kind, options, str(run.out)),
        seed=record["seed"],
        device=record["device"],
        material=Material(solve, verify, record["text"], 0, record.get("synthetic", 0)),
        compute=getattr(torch, record["compute"]),
    )
    return dataclasses.replace(job, notes=tuple(map(Message.read, request["notes"])))


def kept_windows(run: Run) -> tuple[list[Tensor], list[Tensor]]:
    """Windows of a stopped run."""
    try:
        return run.windows()
    except (FileNotFoundError, UsageError) as error:
        raise UsageError(
            "{out}: the text of the stopped run is missing or damaged ({file}), so it cannot go on. Remove {out} and "
            "give the first command again.",
            out=run.out,
            file=f"{run.folder.name}/windows.safetensors",
        ) from error


def carry_out(run: Run, job: Job, recipe: Mapping[str, Any], on_event: OnEvent, **beside: Any) -> dict[str, Any]:
    """Begin the run of a job or go on with it, and see it through. beside: as for `request_of`."""
    with run.opened(request_of(job, recipe, **beside), job.solve, job.verify, job.plan) as began:
        return _made(run, job, began, on_event)


def _made(run: Run, job: Job, began: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Do what was decided, or what a stopped run left of it, and close the run."""
    started = time.monotonic()
    for note in job.notes:
        on_event(note_event(note))
    job = with_shares(with_transform(job, run.folder, on_event), run.folder, on_event)
    job = with_spikes(job, run.folder, on_event)
    shards = Shards(job, run.out, run.folder, on_event)
    refuse_overflow(job)
    verified = solve_through(job, shards) if job.solve else without_text(job, shards)
    verified.pop("windows", None)
    summary = finish(job, shards, verified, began["recipe"], began["files"])
    for note in summary["notes"][len(job.notes) :]:
        on_event(note_event(note))
    run.close()
    return {
        "out": str(run.out),
        **job.choices(),
        "sizes": {"original": size_on_disk(job.original.path), "lighter": size_on_disk(run.out)},
        "loads_in": "transformers" if job.storage.stock else "modelling file",
        **verified,
        "linears": summary["report"],
        "check": summary["check"],
        "seconds": {
            "solving": sum(entry["seconds"] for entry in shards.journal.entries.values()),
            "this call": time.monotonic() - started,
        },
        "notes": summary["notes"],
    }
