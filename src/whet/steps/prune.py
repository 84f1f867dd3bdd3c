"""The step `prune`: a dense folder in, a smaller dense folder of the same family out.

Blocks, channels, heads or experts go altogether, so the shapes get smaller and everything that loads the original loads
what is left. The order: which shape (tried, where several remove the same share), which units of each block, weights
that stay fitted to what the original computes, then the folder and the proof that it computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from whet.anatomy import UNITS, fewest_experts, unit_counts, why_alike
from whet.apply.job import Job
from whet.apply.run import Run
from whet.checkpoint import Checkpoint, Decoded
from whet.engines.torch import resolve_device
from whet.errors import UsageError
from whet.events import OnEvent, Way
from whet.messages import Message
from whet.paths import check_out
from whet.pruning import BY_UNIT, Removal, parse_importance, parse_share, parse_sizes, parse_units
from whet.pruning.removal import (
    BLIND,
    LAYER_IMPORTANCES,
    OFFERED,
    PREDICTS_NOTHING,
    SUB_BLOCKS,
    TAYLOR,
    parse_names,
    parse_shapes,
    rivals_of,
)
from whet.steps.coded_student import stored_as
from whet.steps.course import estimated_course
from whet.steps.driver import announce, dense_job, examined, job_of, planned, request_of, step_recipe
from whet.steps.elastic import SORTED, Elastic, elastic_needs
from whet.steps.elastic_card import elastic_card
from whet.steps.free import Free, check_free, free_needs
from whet.steps.material import Material, about_text, read_material, with_text
from whet.steps.options import Prune
from whet.steps.original import Original, about_original, open_original
from whet.steps.protect import about_protected, protected
from whet.steps.prune_coded import carried_out_coded, check_codes, is_coded, open_codes, units_of_codes
from whet.steps.prune_options import SIZES
from whet.steps.prune_shapes import built, needs_of, offered_shapes, weights_of
from whet.steps.prune_trials import Trials
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
    assert job.removal is not None
    return free_needs(job) if job.removal.free else elastic_needs(job) if job.removal.sizes else needs_of(job)


def _carried_out(run: Run, job: Job, began: Mapping[str, Any], way: Way) -> dict[str, Any]:
    assert job.removal is not None
    if isinstance(job.checkpoint, Decoded):
        return carried_out_coded(run, job, began, way)
    if job.removal.sizes:
        return carried_out(run, job, began, way, Elastic, elastic_card)
    return carried_out(run, job, began, way, Free if job.removal.free else Trials)


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
    free = parse_shapes(options.shapes)
    if options.shapes is not None and options.remove is None:
        raise UsageError("shapes goes with remove, which says how much is to go. Leave it out.")
    if options.of_tokens:
        return
    if options.remove is not None:
        parse_share(options.remove, "row")
    parse_sizes(options.sizes or SIZES)
    units = parse_units(options.units, tuple(BY_UNIT) if free else UNITS)
    if (whole := [unit for unit in SUB_BLOCKS if unit in units]) and not free:
        raise UsageError(
            "{unit} goes from some blocks and not from others, which no stock config can say. Give --shapes free with "
            "it, or --units layers, with which whole blocks go.",
            unit=whole[0],
        )
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
    source = Checkpoint(model)
    if coded := is_coded(source):
        check_codes(asked, source.path)
        source = open_codes(source.path)
    opened = open_original(source, find_target("transformers"), asked.dequantize)
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
    stored = stored_as(source) if coded else {}
    job = dense_job(opened, "prune", place, seed, material, compute, notes=tuple(notes), removal=removal, **stored)
    job = _with_shapes(job)
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
    counts, coded = unit_counts(parts, config), isinstance(opened.checkpoint, Decoded)
    counts = units_of_codes(counts, opened) if coded else counts
    possible = [unit for unit in UNITS if isinstance(counts[unit], int)]
    if parse_shapes(asked.shapes):
        return _free_removal(asked, opened, notes)
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
    if asked.merge and "experts" not in units:
        raise UsageError(
            "merge is about experts, and of {folder} {units} may go. Leave merge out, or give --units experts of a "
            "model that has them.",
            folder=opened.checkpoint.path,
            units=", ".join(units),
        )
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
    _check_gradients(importance, opened)
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
    rivals = rivals_of(asked.importance, importance, asked.repair)
    return Removal(share, units, importance, asked.repair and not coded, rivals=rivals, merge=asked.merge)


def _free_removal(asked: Prune, opened: Original, notes: list[Message]) -> Removal:
    """The same where blocks may differ in shape. Raises UsageError for families that they may not of."""
    folder, parts = opened.checkpoint.path, opened.parts
    counts = unit_counts(parts, opened.checkpoint.config)
    whys = (*(counts[unit] for unit in OFFERED if unit != "experts"), why_alike(parts))
    if (why := next((x for x in whys if isinstance(x, Message)), None)) is not None:
        raise UsageError(
            "{folder} cannot have blocks that differ in shape: {why}. Leave out --shapes free.", folder=folder, why=why
        )
    possible = [unit for unit in BY_UNIT if unit not in ("experts", "hidden")]
    units = parse_units(asked.units, possible)
    if "experts" in units:
        raise UsageError("{folder}: no experts can be taken: {why}.", folder=folder, why=counts["experts"])
    if "hidden" in units:
        raise UsageError(
            "The residual stream is as wide in every block, so hidden does not go with --shapes free. Leave one of the "
            "two out."
        )
    importance = parse_importance(asked.importance, units)
    if importance.get("layers", LAYER_IMPORTANCES[0]) != LAYER_IMPORTANCES[0]:
        raise UsageError(
            "With --shapes free blocks are compared with what else may go, by {usual}; {name} does not compare them. "
            "Leave it out.",
            usual=LAYER_IMPORTANCES[0],
            name=importance["layers"],
        )
    _check_gradients(importance, opened)
    notes.append(
        Message(
            "where blocks come to differ in shape, transformers loads the folder by the modelling file in it, with "
            "trust_remote_code=True, and refuses it without; whet runs no code of the folder"
        )
    )
    return Removal(parse_share(asked.remove or 0, "row").share, units, importance, asked.repair, free=True)


def _check_gradients(importance: Mapping[str, str], opened: Original) -> None:
    """Raises UsageError where units are to be chosen by gradients that cannot be followed."""
    if TAYLOR in importance.values() and (why := not_followed(opened.parts)) is not None:
        raise UsageError(
            "Importance {name} follows gradients, which {folder} does not allow: {why}. Give another.",
            name=TAYLOR,
            folder=opened.checkpoint.path,
            why=why,
        )


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


def _with_shapes(job: Job) -> Job:
    """`job` with the shapes that are offered. Raises UsageError where there is none, or where fewer experts would stay
    than every token is sent to."""
    assert job.removal is not None
    if job.removal.sizes:
        return job
    if job.removal.free:
        check_free(job)
        return job
    offered, fewest = offered_shapes(job), fewest_experts(built(job))
    enough = tuple(one for one in offered if one.experts == 0 or one.experts >= fewest)
    if not enough:
        weights = weights_of(job)
        most = weights.expert * weights.whole.layers * (weights.whole.experts - fewest) / weights.total
        raise UsageError(
            "{folder}: {count} of {whole} experts would stay in each block, and every token is sent to {fewest}. "
            "Experts that can go are at the most {most:.1%} of the blocks' parameters.",
            folder=job.checkpoint.path,
            count=max(one.experts for one in offered),
            whole=weights.whole.experts,
            fewest=fewest,
            most=float(most),
        )
    return replace(job, removal=replace(job.removal, offered=enough))
