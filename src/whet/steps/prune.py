"""The step `prune`: a dense folder in, a smaller dense folder of the same family out.

Blocks, channels, heads or experts go altogether, so the shapes get smaller and everything that loads the original loads
what is left. The order: which shape (tried, where several remove the same share), which units of each block, weights
that stay fitted to what the original computes, then the folder and the proof that it computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from whet.anatomy import UNITS, fewest_experts, unit_counts
from whet.apply.job import Job
from whet.apply.run import Run
from whet.engines.torch import resolve_device
from whet.errors import UsageError
from whet.events import OnEvent, Way
from whet.messages import Message
from whet.paths import check_out
from whet.pruning import Removal, parse_importance, parse_share, parse_sizes, parse_units
from whet.pruning.removal import BLIND, OFFERED, PREDICTS_NOTHING, TAYLOR, parse_names
from whet.steps.course import estimated_course
from whet.steps.driver import announce, dense_job, examined, job_of, planned, request_of, step_recipe
from whet.steps.elastic import SORTED, Elastic, elastic_needs
from whet.steps.elastic_card import elastic_card
from whet.steps.material import Material, about_text, read_material, with_text
from whet.steps.options import SIZES, Prune
from whet.steps.original import Original, about_original, open_original
from whet.steps.protect import about_protected, protected
from whet.steps.prune_shapes import built, needs_of, offered_shapes
from whet.steps.pruned import carried_out
from whet.steps.request import Request, with_texts
from whet.steps.vocabulary import cut_vocabulary, resume_vocabulary
from whet.targets import find_target
from whet.walk import not_followed

# Experts of a block below which, and the share of them above which, taking some is known to cost much.
_FEW, _MANY = 64, Fraction(1, 4)


def prune(
    model: str | Path, out: str | Path, asked: Prune, *, seed: int, device: str, dry_run: bool, on_event: OnEvent
) -> dict[str, Any]:
    """Write a smaller copy of `model` into the folder `out`; returns what `whet.prune` does."""
    check(asked)
    if asked.of_tokens:
        return _cut_tokens(model, out, asked, seed, dry_run, on_event)
    check_out(out, model)
    run = Run(out)
    on_event = run.telling(on_event)
    job = decide_prune(model, asked, seed=seed, device=device)
    run.check_free(job.checkpoint.path)
    needs = _needs(job)
    announce(run, needs, on_event)
    if dry_run:
        return planned(run, job, needs)
    way = Way(on_event, estimated_course(job, needs["stages"]))
    job = with_text(examined(job, way), way)
    _check_verifying(job)
    recipe = step_recipe(model, job, Prune, asked)
    with run.opened(request_of(job, recipe), job.solve, job.verify) as began:
        return _carried_out(run, job, began, way)


def _needs(job: Job) -> dict[str, Any]:
    return elastic_needs(job) if job.removal is not None and job.removal.sizes else needs_of(job)


def _carried_out(run: Run, job: Job, began: Mapping[str, Any], way: Way) -> dict[str, Any]:
    if job.removal is not None and job.removal.sizes:
        return carried_out(run, job, began, way, Elastic, elastic_card)
    return carried_out(run, job, began, way)


def _cut_tokens(
    model: str | Path, out: str | Path, asked: Prune, seed: int, dry_run: bool, on_event: OnEvent
) -> dict[str, Any]:
    """The same where tokens go."""
    top = {} if Path(model).is_absolute() else {"model": str(model)}
    options = Prune.model_construct(**asked.model_dump(include=set(Prune.model_fields))).document()
    return cut_vocabulary(
        model,
        out,
        vocab=asked.vocab,
        keep_languages=parse_names(asked.keep_languages or ""),
        min_count=asked.min_count,
        eval_text=asked.eval_text,
        field=asked.field,
        skip_bad=asked.skip_bad,
        recipe={"version": 1, **top, "seed": seed, "steps": [{"prune": options}]},
        dry_run=dry_run,
        on_event=on_event,
    )


def run(request: Request) -> dict[str, Any]:
    """The step of a recipe: as `prune`, on the recipe's text where the step names none."""
    options = request.options.model_dump()
    return prune(
        request.source,
        request.out,
        Prune.of("prune", **(options if request.options.of_tokens else with_texts(options, request.texts))),
        seed=request.seed,
        device=request.device,
        dry_run=request.dry_run,
        on_event=request.on_event,
    )


def check(options: Prune) -> None:
    """Raises UsageError for units, importances and a share that are not known or do not go together."""
    options.check()
    if options.of_tokens:
        return
    if options.remove is not None:
        parse_share(options.remove, "row")
    parse_sizes(options.sizes or SIZES)
    units = parse_units(options.units, UNITS)
    parse_importance(options.importance, units)


def halved(options: Prune, original: Path) -> Prune | None:
    """Half the share. Of tokens there is no half, nor of nothing."""
    if options.remove is None:
        return None
    return options.model_copy(update={"remove": float(parse_share(options.remove, "row").share / 2)})


def resume_prune(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    if request.get("unit") == "vocabulary":
        return resume_vocabulary(run, request, on_event)
    job = job_of(run, request, Prune, decide_prune)
    way = Way(run.telling(on_event), estimated_course(job, _needs(job)["stages"]))
    job = examined(job, way)
    with run.opened(request_of(job, request["recipe"]), job.solve, job.verify) as began:
        return _carried_out(run, job, began, way)


def decide_prune(
    model: str | Path,
    asked: Prune,
    *,
    seed: int = 0,
    device: str = "auto",
    material: Material | None = None,
    compute: torch.dtype | None = None,
) -> Job:
    """What a run does, as `whet.steps.decide.decide` says it of the step `quantize`. Raises UsageError for what cannot
    be taken, with what can."""
    place = resolve_device(device)
    opened = open_original(model, find_target("transformers"))
    notes: list[Message] = []
    removal = _removal(asked, opened, notes)
    given = material
    if material is None:
        instead = f"--importance {BLIND} --no-repair --units channels"
        material = read_material(
            asked, opened.checkpoint, opened.parts, seed, needed=not removal.blind, instead=instead
        )
    if given is None and asked.protect is not None:
        material = protected(material, parse_names(asked.protect), asked.skills, opened.checkpoint, seed)
    notes += about_original(opened, asked.window, material) + about_protected(material)
    if given is None:
        notes += about_text(asked, material, opened.parts, solved=removal.repair or bool(removal.sizes))
    job = dense_job(opened, "prune", place, seed, material, compute, notes=tuple(notes), removal=removal)
    _check_experts(job)
    _check_verifying(job)
    return job


def _removal(asked: Prune, opened: Original, notes: list[Message]) -> Removal:
    """What is to go. Raises UsageError for units that the model does not have."""
    parts, config = opened.parts, opened.checkpoint.config
    if (opened.checkpoint.whet or {}).get("masks"):
        raise UsageError(
            "{folder} has masks, and which weights they are of would be lost. Prune first, then make masks.",
            folder=opened.checkpoint.path,
        )
    counts = unit_counts(parts, config)
    possible = [unit for unit in UNITS if isinstance(counts[unit], int)]
    if asked.elastic:
        possible = [unit for unit in possible if unit == "layers" or unit in SORTED]
        counts |= {"experts": Message("experts are not sorted"), "hidden": Message("a turned stream is not sorted")}
        _check_predicts(opened)
    units = parse_units(asked.units, [unit for unit in possible if unit in OFFERED])
    if asked.units is not None and (missing := [unit for unit in units if unit not in possible]):
        raise UsageError(
            "{folder}: no {units} can be taken: {why}. What can: {possible}.",
            folder=opened.checkpoint.path,
            units=missing[0],
            why=counts[missing[0]],
            possible=", ".join(possible) or Message("nothing"),
        )
    if not possible:
        raise UsageError(
            "{folder}: nothing can be taken: {why}. Families with a row: docs/families.md.",
            folder=opened.checkpoint.path,
            why=counts["layers"],
        )
    if asked.units is None and "experts" in possible:
        units = ("experts",)  # where the weights are; blocks and heads are what all of them need
    importance = parse_importance(asked.importance, units)
    if parts.task != "causal" and importance.get("layers", PREDICTS_NOTHING) != PREDICTS_NOTHING:
        if importance["layers"] in (asked.importance or ""):
            raise UsageError(
                "Importance {name} looks at how the next token is predicted, and {folder} predicts none. Give "
                "--importance {instead}.",
                name=importance["layers"],
                folder=opened.checkpoint.path,
                instead=PREDICTS_NOTHING,
            )
        importance["layers"] = PREDICTS_NOTHING
    if TAYLOR in importance.values() and (why := not_followed(parts)) is not None:
        raise UsageError(
            "Importance {name} follows gradients, which {folder} does not allow: {why}. Give another.",
            name=TAYLOR,
            folder=opened.checkpoint.path,
            why=why,
        )
    if asked.elastic:
        return Removal(Fraction(0), units, importance, asked.repair, parse_sizes(asked.sizes or SIZES))
    share, experts = parse_share(asked.remove or 0, "row").share, counts["experts"]
    if "experts" in units and isinstance(experts, int) and experts < _FEW and share > _MANY:
        notes.append(
            Message(
                "of {experts} experts a block more than {most:.0%} go: models of fewer than {few} are known to lose "
                "much by that",
                experts=experts,
                most=float(_MANY),
                few=_FEW,
            )
        )
    return Removal(share, units, importance, asked.repair)


def _check_predicts(opened: Original) -> None:
    """Raises UsageError of a model whose predictions cannot be compared."""
    if opened.parts.task != "causal":
        raise UsageError(
            "{folder} predicts no next token, by which shapes are compared. Give --remove instead of --elastic.",
            folder=opened.checkpoint.path,
        )


def _check_verifying(job: Job) -> None:
    """Raises UsageError where shapes are to be compared and there is no text for it."""
    if job.removal is not None and job.removal.sizes and not job.verify and not job.to_write:
        raise UsageError(
            "No text was left for verifying, by which shapes are compared. Give more text, or --eval FILE."
        )


def _check_experts(job: Job) -> None:
    """Raises UsageError where fewer experts would stay than every token is sent to."""
    if job.removal is not None and job.removal.sizes:
        return
    least, fewest = min(one.experts for one in offered_shapes(job)), fewest_experts(built(job))
    if 0 < least < fewest:
        raise UsageError(
            "{folder}: {left} experts would stay, and every token is sent to {fewest}. Remove less.",
            folder=job.checkpoint.path,
            left=least,
            fewest=fewest,
        )
