"""The step `masks`: a dense folder in, a dense folder out, some of its weights exactly 0.

Zeros alone make nothing smaller or faster; they are what a step that rounds (`quantize`) keeps, and what kernels for
2:4 read. So everything else stays: names, types, config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whet.apply.job import Job
from whet.apply.run import Run
from whet.engines.torch import resolve_device
from whet.errors import UsageError
from whet.events import OnEvent, Way
from whet.grids import FloatGrid, Grid
from whet.messages import Message
from whet.paths import check_out
from whet.pruning import WITHIN, Sparsity, find_importance, parse_groups, parse_share
from whet.pruning.outliers import OWL, UNIFORM, check_allocation
from whet.steps.course import course
from whet.steps.driver import announce, carry_out, dense_job, examined, job_of, planned, step_recipe
from whet.steps.estimate import estimate
from whet.steps.material import Material, about_text, read_material, with_text
from whet.steps.options import Masks
from whet.steps.original import Original, about_original, open_original
from whet.steps.request import Request, with_texts
from whet.steps.sparsity import BLIND, check_importance, check_sparsity, masks_before
from whet.targets import find_target

_STORED = (torch.float32, torch.bfloat16, torch.float16)


def masks(
    model: str | Path, out: str | Path, asked: Masks, *, seed: int, device: str, dry_run: bool, on_event: OnEvent
) -> dict[str, Any]:
    """Write a copy of `model` with zeros into the folder `out`; returns what `whet.masks` does."""
    check(asked)
    check_out(out, model)
    run = Run(out)
    on_event = run.telling(on_event)
    job = decide_masks(model, asked, seed=seed, device=device)
    run.check_free(job.checkpoint.path)
    needs = estimate(job)
    announce(run, needs, on_event)
    if dry_run:
        return planned(run, job, needs)
    way = Way(on_event, course(job))
    job = with_text(examined(job, way), way)
    return carry_out(run, job, step_recipe(model, job, Masks, asked), way)


def run(request: Request) -> dict[str, Any]:
    """The step of a recipe: as `masks`, on the recipe's text where the step names none."""
    return masks(
        request.source,
        request.out,
        Masks.of("masks", **with_texts(request.options.model_dump(), request.texts)),
        seed=request.seed,
        device=request.device,
        dry_run=request.dry_run,
        on_event=request.on_event,
    )


def check(options: Masks) -> None:
    """Raises UsageError for an allocation that is not known, and for options that exclude each other."""
    options.check()
    check_allocation(options.allocation)


def halved(options: Masks, original: Path) -> Masks | None:
    """Half the way from the original: half of the share, or half as many of each group. Of one weight there is none."""
    if options.remove is not None:
        share = parse_share(options.remove, WITHIN[0]).share / 2
        return options.model_copy(update={"remove": float(share)})
    pattern = parse_groups(str(options.pattern))
    kept = pattern.kept + -(-(pattern.size - pattern.kept) // 2)
    return None if kept == pattern.size else options.model_copy(update={"pattern": f"{kept}:{pattern.size}"})


def resume_masks(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    job = job_of(run, request, Masks, decide_masks)
    way = Way(run.telling(on_event), course(job))
    return carry_out(run, examined(job, way), request["recipe"], way)


def decide_masks(
    model: str | Path,
    asked: Masks,
    *,
    seed: int = 0,
    device: str = "auto",
    material: Material | None = None,
    compute: torch.dtype | None = None,
) -> Job:
    """What a run does, as `whet.steps.decide.decide` says it of the step `quantize`."""
    place = resolve_device(device)
    opened = open_original(model, find_target("transformers"), asked.dequantize)
    rule = _rule(asked, opened)
    notes = []
    if not opened.parts.family.known and asked.text is not None:
        family = opened.parts.model_type
        notes.append(
            Message("whet has no table of the family {family}: the text that was given has no use here", family=family)
        )
        asked = asked.model_copy(update={"text": None, "eval_text": None})
    given = material
    if material is None:
        material = read_material(
            asked,
            opened.checkpoint,
            opened.parts,
            seed,
            needed=asked.update or rule.inputs,
            instead=f"--importance {BLIND} --allocation {UNIFORM} --no-update",
        )
    notes += about_original(opened, asked.window, material)
    if given is None:
        notes += about_text(asked, material, opened.parts, solved=asked.update)
    job = dense_job(
        opened,
        "masks",
        place,
        seed,
        material,
        compute,
        grids=_grids(opened),
        solver="gptq" if asked.update else "nearest",
        notes=tuple(notes),
        sparsity=rule,
    )
    check_sparsity(job)
    return job


def _rule(asked: Masks, opened: Original) -> Sparsity:
    """What is to be taken. Raises UsageError for what cannot be, and where nobody knows what linears read."""
    within = asked.within or find_importance(asked.importance).within
    pattern = parse_groups(str(asked.pattern)) if asked.remove is None else parse_share(asked.remove, within)
    rule = Sparsity(pattern, asked.importance, masks_before(opened), asked.allocation)
    if asked.allocation == OWL and not opened.parts.family.known:
        raise UsageError(
            "whet has no table of the family {model_type}, so it does not know what its linears read, by which "
            "allocation {allocation} counts outliers. Give --allocation {uniform}.",
            model_type=opened.parts.model_type,
            allocation=OWL,
            uniform=UNIFORM,
        )
    check_importance(rule, opened)
    if asked.update and not opened.parts.family.known:
        raise UsageError(
            "whet has no table of the family {model_type}, so it does not know what its linears read, and weights "
            "cannot make up for others. Give --no-update.",
            model_type=opened.parts.model_type,
        )
    return rule


def _grids(opened: Original) -> dict[str, Grid]:
    """The linears of the blocks, each on the type that it is stored in."""
    types = {x.address: opened.checkpoint.tensors[x.parameter].dtype for x in opened.parts.linears()}
    for address, dtype in types.items():
        if dtype not in _STORED:
            raise UsageError(
                "{checkpoint}: {address} is stored as {dtype}, in which weights cannot be taken. Convert the "
                "model to bfloat16 or float32 first.",
                checkpoint=opened.checkpoint.path,
                address=address,
                dtype=str(dtype).removeprefix("torch."),
            )
    return {address: FloatGrid(dtype) for address, dtype in types.items()}
