"""The step `slice`: a smaller model cut from an elastic folder, in seconds and without text.

What stays was found when that folder was made: the first channels and heads of every block, and certain blocks. They
are written as they are, and the folder is proved as that of `prune` is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.apply.job import Job
from whet.apply.run import Run
from whet.budget import tensor_bytes
from whet.checkpoint import Checkpoint
from whet.engines.torch import resolve_device
from whet.errors import UsageError
from whet.events import OnEvent, Way
from whet.paths import check_out
from whet.pruning import Amounts, Removal, parse_size, parse_sizes
from whet.report.numbers import written_size
from whet.steps.course import estimated_course
from whet.steps.driver import announce, dense_job, examined, job_of, planned, request_of, step_recipe
from whet.steps.elastic import SORTED
from whet.steps.elastic_card import slice_card
from whet.steps.material import Material
from whet.steps.options import Options, Prune, Slice
from whet.steps.original import about_original, open_original
from whet.steps.prune_options import SIZES
from whet.steps.prune_shapes import WRITE, bytes_after, memory_of, weights_of, whole_of
from whet.steps.prune_trials import Trials
from whet.steps.pruned import carried_out
from whet.steps.request import Request
from whet.targets import find_target


def slice(  # the verb's name; nothing here needs the builtin
    model: str | Path, out: str | Path, asked: Slice, *, device: str, dry_run: bool, on_event: OnEvent
) -> dict[str, Any]:
    """Cut a smaller model from the elastic folder `model` into `out`; returns what `whet.slice` does."""
    check(asked)
    check_out(out, model)
    run = Run(out)
    on_event = run.telling(on_event)
    job = decide_slice(model, asked, device=device)
    run.check_free(job.checkpoint.path)
    needs = slice_needs(job)
    announce(run, needs, on_event)
    if dry_run:
        return planned(run, job, needs)
    return _carried_out(run, job, step_recipe(model, job, Slice, asked), on_event)


def run(request: Request) -> dict[str, Any]:
    """The step of a recipe. Before the step that sorts the model, it is told what all of it takes."""
    if request.dry_run and (Checkpoint(request.source).whet or {}).get("elastic") is None:
        size = Checkpoint(request.source).nbytes
        return {"memory": size, "disk": size, "seconds": 1 + 4e-9 * size}
    return slice(
        request.source,
        request.out,
        request.options,
        device=request.device,
        dry_run=request.dry_run,
        on_event=request.on_event,
    )


def check(options: Slice) -> None:
    """Raises UsageError for what is no size."""
    parse_size(options.size)


def after(options: Slice, before: Options | None, original: Path) -> None:
    """Raises UsageError unless what is read is elastic, and has the size."""
    size = parse_size(options.size)
    if before is None:
        _found(original, Checkpoint(original).whet, size)
    elif not (isinstance(before, Prune) and before.elastic):
        raise UsageError("the step before it leaves nothing sorted. Put a step prune with elastic right before it.")
    elif size not in (1, *parse_sizes(before.sizes or SIZES)):
        raise UsageError(
            "the elastic folder before it has no size {size}. Name it in its sizes.", size=written_size(float(size))
        )


def resume_slice(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    return _carried_out(run, job_of(run, request, Slice, decide_slice), request["recipe"], run.telling(on_event))


def _carried_out(run: Run, job: Job, recipe: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    way = Way(on_event, estimated_course(job, slice_needs(job)["stages"]))
    job = examined(job, way)
    with run.opened(request_of(job, recipe)) as began:
        return carried_out(run, job, began, way, Slices, slice_card)


def decide_slice(
    model: str | Path,
    asked: Slice,
    *,
    seed: int = 0,
    device: str = "auto",
    material: Material | None = None,
    compute: torch.dtype | None = None,
) -> Job:
    """What a run does. Raises UsageError for a folder that is not elastic, and for a size that is not in it."""
    place = resolve_device(device)
    opened = open_original(model, find_target("transformers"))
    size = parse_size(asked.size)
    _found(opened.checkpoint.path, opened.checkpoint.whet, size)
    return dense_job(
        opened,
        "slice",
        place,
        seed,
        Material(),
        compute,
        notes=tuple(about_original(opened, 0, Material())),
        removal=Removal(1 - size, ("layers", *SORTED), {}, repair=False),
    )


def _found(folder: Path, manifest: Mapping[str, Any] | None, size: Fraction) -> Mapping[str, Any] | None:
    """What the manifest says of the smaller model of that size; None of all of it. Raises UsageError where there is
    none, with what there is."""
    elastic = (manifest or {}).get("elastic")
    if elastic is None:
        raise UsageError(
            "{folder} is not elastic: nothing in it is sorted. Make it so with `whet prune {folder} ELASTIC "
            "--elastic`, and cut that.",
            folder=folder,
        )
    if size == 1:
        return None
    by_size: dict[float, Mapping[str, Any]] = {one["size"]: one for one in elastic["sizes"]}
    if float(size) not in by_size:
        near = min(by_size, key=lambda one: abs(one - size))
        raise UsageError(
            "{folder} has no shape of {size}. The nearest is {near}; it has {sizes}. For others make it anew with "
            "`--elastic --sizes`.",
            folder=folder,
            size=written_size(float(size)),
            near=written_size(near),
            sizes=", ".join(map(written_size, (1.0, *by_size))),
        )
    return by_size[float(size)]


def _smaller(job: Job) -> Mapping[str, Any] | None:
    assert job.removal is not None
    return _found(job.checkpoint.path, job.checkpoint.whet, 1 - job.removal.share)


def slice_needs(job: Job) -> dict[str, Any]:
    """What a run takes: as `needs_of` says it of `prune`."""
    before, smaller = tensor_bytes(job.anatomy, job.checkpoint.stored, {}), _smaller(job)
    after = before if smaller is None else bytes_after(job, Amounts(**smaller["amounts"]), before)
    stages = {"prune": WRITE * weights_of(job).total, "finish": 0.5 + 4e-9 * after["total"]}
    return {
        "bytes": {"before": before, "after": after, "ratio": after["total"] / before["total"]},
        "memory": memory_of(job),
        "disk": int(after["total"] * 1.02) + 2**20,
        "seconds": sum(stages.values()),
        "stages": stages,
    }


class Slices(Trials):
    """Takes the shape that an elastic folder says."""

    def _found(self) -> dict[str, Any]:
        whole, smaller = whole_of(self.job), _smaller(self.job)
        amounts = whole if smaller is None else Amounts(**smaller["amounts"])
        layers = list(range(whole.layers)) if smaller is None else smaller["layers"]
        first = {
            unit: {str(index): list(range(getattr(whole, unit))) for index in layers}
            for unit in SORTED
            if getattr(amounts, unit) < getattr(whole, unit)
        }
        return {
            "amounts": amounts.record(),
            "layers": layers,
            "experts": {},
            "removed": self.removed(layers, amounts, weights_of(self.job).total),
            "trials": [],
            "orders": first,
            "verified": {} if smaller is None else {key: smaller[key] for key in ("kl", "top1")},
        }

    def proving(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """A few tokens to prove the folder by."""
        return self.solve, []
