"""The step `transform`: factors or rotations folded into a model, which stays dense and computes the same."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.apply.job import Job
from whet.apply.run import Run
from whet.checkpoint import (
    MANIFEST,
    Checkpoint,
    atomic,
    copy_beside,
    hashed_files,
    inside,
    size_on_disk,
    write_json,
    write_tensors,
)
from whet.events import OnEvent, Stage, Way, note_event
from whet.messages import to_json
from whet.paths import check_out
from whet.steps.course import transform_course
from whet.steps.decide import decide
from whet.steps.driver import examined, request_of
from whet.steps.estimate import check_room, estimate
from whet.steps.lineage import next_manifest
from whet.steps.material import with_text
from whet.steps.options import Quantize
from whet.steps.quantize import recipe_of
from whet.steps.request import Request, with_texts
from whet.transforms.judge import with_transform
from whet.transforms.make import check_transform


def run(request: Request) -> dict[str, Any]:
    """Write the transformed model into `request.out`; returns `out`, `transforms` by group, `notes` and `sizes`."""
    options = request.options.model_dump()
    options["transform"] = options.pop("kind")
    asked = Quantize.of("transform", **with_texts(options, request.texts))
    check_out(request.out, request.source)
    out = Run(request.out)
    job = decide(request.source, asked, seed=request.seed, device=request.device)
    out.check_free(job.checkpoint.path)
    job = check_transform(job)
    needs = estimate(job)
    needs["disk"] += job.checkpoint.nbytes
    check_room(out.out, needs)
    if request.dry_run:
        return {"dry_run": True, **needs, "notes": list(job.notes)}
    way = Way(out.telling(request.on_event), transform_course(job))
    job = with_text(examined(job, way), way)
    with out.opened(request_of(job, recipe_of(request.source, asked, job)), job.solve, job.verify) as began:
        return _made(out, job, began["files"], way)


def _made(run: Run, job: Job, files: Mapping[str, str], on_event: OnEvent) -> dict[str, Any]:
    for note in job.notes:
        on_event(note_event(note))
    made = with_transform(job, run.folder, on_event)
    _move(made, run.out)
    copy_beside(job.original.path, run.out, files)
    manifest = next_manifest(
        job.original,
        {**made.record(), "step": "transform", "container": "dense"},
        name=job.name,
        sha256=job.sha256,
        container="dense",
        target=job.target,
        masks=(job.original.whet or {}).get("masks"),
        transforms=dict(made.transforms or {}),
        notes=to_json(made.notes),
        files=hashed_files(run.out),
    )
    write_json(run.out / MANIFEST, manifest.document())
    Stage(on_event, "finish", 1).step()
    run.close()
    return {
        "out": str(run.out),
        "transforms": manifest.transforms,
        "sizes": {"original": size_on_disk(job.original.path), "lighter": size_on_disk(run.out)},
        "notes": list(made.notes),
    }


def _move(made: Job, out: Path) -> None:
    """Copy the transformed folder's weights, or the original's where nothing was folded in. May be repeated."""
    source = made.checkpoint.path
    if made.checkpoint.stored_in is not None:
        _decoded(made.checkpoint, out)
        return
    named = [source / name for name in ("config.json", "model.safetensors.index.json", "README.md")]
    found = {info.file for info in made.checkpoint.stored.values()} | {p for p in named if p.is_file()}
    for file in sorted(found):
        if not inside(source, file):  # the card; whatever else is read was refused
            continue
        with atomic(out / file.name) as temporary:
            shutil.copyfile(file, temporary)


def _decoded(checkpoint: Checkpoint, out: Path) -> None:
    """Write what an original that is stored in few bits decodes to."""
    files: dict[str, list[str]] = {}
    for name, info in checkpoint.tensors.items():
        files.setdefault(info.file.name, []).append(name)
    for file, names in files.items():
        write_tensors(out / file, {name: checkpoint.read(name) for name in names})
    if len(files) > 1:
        mapping = {name: file for file, names in files.items() for name in names}
        write_json(out / "model.safetensors.index.json", {"metadata": {}, "weight_map": mapping})
    write_json(out / "config.json", checkpoint.config)
