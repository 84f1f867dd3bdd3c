"""The step `distill`: a dense model in, the same model trained to predict what its original predicts out.

The order: what to learn, from whom and for how long; the text, which the teacher writes where there is none; the
training, which keeps the best by text that it does not train on; then the folder, with every tensor under the name and
in the type that it had, and the proof that it computes what was trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whet.apply.job import Job, model_name
from whet.apply.run import Run
from whet.checkpoint import Checkpoint, check_files, load_tokenizer
from whet.distillation import DIVERGENCES, Distillation, Objective
from whet.engines.torch import resolve_device
from whet.errors import UsageError, did_you_mean
from whet.events import OnEvent, Stage, Way
from whet.messages import Message
from whet.paths import check_out
from whet.steps.coded_student import GAP_RATE, about_latent, open_coded, stored_as
from whet.steps.course import estimated_course
from whet.steps.distill_options import LEARNT, OWN_LOSSES, SCALES, SCHEDULES, TRAINED_TOKENS, WRITERS
from whet.steps.distilled import MOST_STEPS, carried_out, needs_of, timed_steps, weights_of
from whet.steps.draw_targets import check_targets, check_tokens, drawn_already, with_targets
from whet.steps.driver import announce, dense_job, examined, job_of, planned, request_of, step_recipe
from whet.steps.lesson import dense_rate, taught
from whet.steps.material import Material, about_text, read_material, with_text
from whet.steps.options import Distill
from whet.steps.original import Original, about_original, open_original
from whet.steps.request import Request, with_texts
from whet.steps.target_store import digest_of
from whet.targets import find_target
from whet.train import check_tracker


def distill(
    model: str | Path,
    out: str | Path,
    asked: Distill,
    *,
    seed: int,
    device: str,
    dry_run: bool,
    on_event: OnEvent,
    alike: bool = False,
) -> dict[str, Any]:
    """Train a copy of `model` in the folder `out`; returns what `whet.distill` does. alike: whether it may be its own
    teacher, as where a recipe is tried before its steps are done."""
    check(asked)
    check_out(out, model)
    run = Run(out)
    on_event = run.telling(on_event)
    job = decide_distill(model, asked, seed=seed, device=device, alike=alike)
    teacher = taught(job).teacher
    if not alike and teacher is not None and job.checkpoint.path.resolve() == teacher.resolve():
        raise UsageError(
            "{folder} is both the student and the teacher, so there is nothing to learn. Name the original as teacher.",
            folder=job.checkpoint.path,
        )
    run.check_free(job.checkpoint.path)
    needs = needs_of(job, asked.minutes)
    announce(run, needs, on_event)
    if dry_run:
        return planned(run, job, needs)
    way = Way(on_event, estimated_course(job, needs["stages"]))
    job = _read_whole(job, way)
    given = digest_of(job.solve, job.verify)
    if asked.rewrite and drawn_already(job, given):
        job = dataclasses.replace(job, solve=(), verify=(), to_write=0)
    else:
        job = with_text(job, way, None if teacher is None else Checkpoint(teacher), instead=asked.rewrite)
    job = with_targets(job, way, given)
    if asked.minutes is not None:
        steps = _steps_begun(run) or timed_steps(job, asked.minutes)
        job = dataclasses.replace(job, distillation=dataclasses.replace(taught(job), steps=steps))
    return _carried_out(run, job, _recipe(model, job, asked), way)


def run(request: Request) -> dict[str, Any]:
    """The step of a recipe: as `distill`, from the recipe's original and on its text where the step names none."""
    options = with_texts(request.options.model_dump(), request.texts)
    if options["teacher"] is None:
        options["teacher"] = request.original
    return distill(
        request.source,
        request.out,
        Distill.of("distill", **options),
        seed=request.seed,
        device=request.device,
        dry_run=request.dry_run,
        on_event=request.on_event,
        alike=request.dry_run,
    )


def check(options: Distill) -> None:
    """Raises UsageError for a loss or schedule that is not known, and for options that do not go together."""
    options.check()
    if options.loss not in DIVERGENCES:
        raise UsageError(
            "loss {name!r} is not known.{near} Losses: {known}.",
            name=options.loss,
            near=did_you_mean(options.loss, DIVERGENCES),
            known=", ".join(DIVERGENCES),
        )
    if options.mix is not None and DIVERGENCES[options.loss].mix is None:
        raise UsageError(
            "loss {name} has no parameter, so mix would do nothing. Leave mix out, or take one of {others}.",
            name=options.loss,
            others=", ".join(name for name, one in DIVERGENCES.items() if one.mix is not None),
        )
    known = SCHEDULES.split(", ")
    if options.schedule not in known:
        raise UsageError(
            "schedule {name!r} is not known.{near} Schedules: {known}.",
            name=options.schedule,
            near=did_you_mean(options.schedule, known),
            known=SCHEDULES,
        )
    for name in ("writer", "own_loss"):
        if getattr(options, name) is not None and options.own_text is None:
            raise UsageError(
                "{name} is about the student's own text: give own-text with it, or leave it out.", name=name
            )
    if options.own_loss == "dpkd" and (options.writer == "switch" or options.more_teachers is not None):
        raise UsageError(
            "dpkd compares a text of the student's with one of its teacher's: leave out writer and more-teachers."
        )
    own_share(options.own_text)
    check_tracker(options.track)
    if options.rewrite and options.synthetic is not None:
        raise _no_text_to_rewrite()
    for name, every in (("learn", LEARNT), ("scales", SCALES), ("writer", WRITERS), ("own_loss", OWN_LOSSES)):
        said = getattr(options, name)
        if said is not None and said not in every.split(", "):
            raise UsageError(
                "{name} {said!r} is not known.{near} One of: {known}.",
                name=name,
                said=said,
                near=did_you_mean(said, every.split(", ")),
                known=every,
            )


def _no_text_to_rewrite() -> UsageError:
    return UsageError(
        "rewrite has the teacher write in place of the text: give text with it, and no synthetic (tokens beside it)."
    )


def own_share(asked: str | float | None) -> float:
    """The share of the steps on own text. Raises UsageError for what is none."""
    if asked is None:
        return 0.0
    try:
        share = float(asked[:-1]) / 100 if isinstance(asked, str) and asked.endswith("%") else float(asked)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise UsageError("own-text {share} is no share of the steps: give one, such as 15%.", share=asked)
    return share


def resume_distill(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    job = job_of(run, request, Distill, decide_distill)
    way = Way(run.telling(on_event), estimated_course(job, needs_of(job)["stages"]))
    return _carried_out(run, with_targets(_read_whole(job, way), way), request["recipe"], way)


def decide_distill(
    model: str | Path,
    asked: Distill,
    *,
    seed: int = 0,
    device: str = "auto",
    material: Material | None = None,
    compute: torch.dtype | None = None,
    alike: bool = False,
) -> Job:
    """What a run does, as `whet.steps.decide.decide` says it of the step `quantize`. Raises UsageError for what cannot
    be taught, with what can."""
    place = resolve_device(device)
    store = check_targets(asked)
    if asked.rewrite and asked.text is None and material is None:
        raise _no_text_to_rewrite()
    if asked.teacher is None and (store is None or not store.complete):
        raise UsageError("No teacher was given. Name the original that {model} was made from: --teacher.", model=model)
    coded = not Checkpoint(model).dense
    student = open_coded(model) if coded else open_original(model, find_target("transformers"))
    teacher = None if asked.teacher is None else open_original(asked.teacher, find_target("transformers"))
    _check_pair(student, teacher)
    if store is not None and store.complete:
        check_tokens(store, student.checkpoint.path, student.parts.embedding.shape[0])
    for name in ("learn", "scales"):
        if not coded and not alike and getattr(asked, name) is not None:
            raise UsageError(
                "{name} is of a quantized student, and {folder} is not quantized. Leave it out.",
                name=name,
                folder=student.checkpoint.path,
            )
    given = material
    others = _others(asked, student, teacher)
    reader = teacher or student
    if material is None and asked.text is None and store is not None and store.complete:
        material = Material()  # what was drawn has it
    elif material is None:
        material = read_material(asked, reader.checkpoint, reader.parts, seed, needed=True, instead="--text")
    notes = about_original(student, asked.window, material)
    if given is None:
        notes += about_text(asked, material, reader.parts, solved=False)
        if asked.text is not None and asked.synthetic:
            material = dataclasses.replace(material, to_write=asked.synthetic, synthetic=asked.synthetic)
        if asked.rewrite and material.solve:
            material = dataclasses.replace(material, to_write=sum(map(len, material.solve)))
    distillation = Distillation(
        Objective(asked.loss, asked.mix, asked.temperature, asked.hidden, asked.relations),
        None if teacher is None else teacher.checkpoint.path,
        "" if teacher is None else model_name(teacher.checkpoint.path.resolve()),
        steps=asked.steps or min(MOST_STEPS, -(-(asked.tokens or TRAINED_TOKENS) // asked.batch)),
        batch=asked.batch,
        at_once=asked.at_once or asked.batch,
        rate=0.0,
        schedule=asked.schedule,
        checkpointing=asked.checkpointing,
        rounded=(asked.learn or "all") if coded else None,
        coupled=asked.scales != "lsq",
        targets=None if asked.targets is None else Path(asked.targets),
        draws=asked.draws,
        own_text=own_share(asked.own_text),
        writer=asked.writer or "student",
        own_loss=asked.own_loss or "mixed",
        others=others,
    )
    if distillation.own_text and teacher is None:
        raise UsageError(
            "own-text needs the teacher: it says what it would have written. Give --teacher beside the targets."
        )
    stored = stored_as(student.checkpoint) if coded else {}
    job = dense_job(student, "distill", place, seed, material, compute, distillation=distillation, **stored)
    rate = asked.rate or (GAP_RATE if coded else dense_rate(job))
    about = [about_latent(job, weights_of(job))] if coded and given is None else []
    distillation = dataclasses.replace(distillation, rate=rate)
    return dataclasses.replace(job, distillation=distillation, notes=(*notes, *about))


def _others(asked: Distill, student: Original, teacher: Original | None) -> tuple[Path, ...]:
    """Folders of more teachers. Raises UsageError for those that do not go with what is asked for."""
    if asked.more_teachers is None:
        return ()
    if teacher is None:
        raise UsageError("more-teachers are beside the teacher: name that too (--teacher).")
    for name in ("hidden", "relations"):
        if getattr(asked, name):
            raise UsageError("{name} compares with one teacher. Leave out {name}, or more-teachers.", name=name)
    if asked.writer == "switch":
        raise UsageError("switch has one teacher step in. Leave out writer, or more-teachers.")
    found = []
    for folder in asked.more_teachers.split(","):
        other = open_original(folder.strip(), find_target("transformers"))
        _check_pair(student, other)
        found.append(other.checkpoint.path)
    return tuple(found)


def _check_pair(student: Original, teacher: Original | None) -> None:
    """Raises UsageError unless both predict the next of the same tokens."""
    both = [student] if teacher is None else [student, teacher]
    for one in both:
        if one.parts.task != "causal":
            raise UsageError(
                "{folder} predicts no next token, which is what a student learns here.", folder=one.checkpoint.path
            )
    if student.checkpoint.dense and (student.checkpoint.whet or {}).get("masks"):
        raise UsageError(
            "{folder} has masks, and training would fill them again. Train first, then make masks.",
            folder=student.checkpoint.path,
        )
    if teacher is None:
        return
    vocabularies = [load_tokenizer(one.checkpoint.path).get_vocab() for one in both]
    if vocabularies[0] != vocabularies[1]:
        raise UsageError(
            "{student} and {teacher} have different tokenizers ({few} and {many} tokens), so what they predict cannot "
            "be compared. Train before tokens are taken (whet prune --vocab), or give another teacher.",
            student=student.checkpoint.path,
            teacher=teacher.checkpoint.path,
            few=len(vocabularies[0]),
            many=len(vocabularies[1]),
        )


def _read_whole(job: Job, way: OnEvent) -> Job:
    """`job` once both models were read whole and found finite; with a note where the teacher is not the original."""
    job = examined(job, way)
    if taught(job).teacher is None:
        return job
    teacher = Checkpoint(taught(job).teacher)  # type: ignore[arg-type]
    check_files(teacher.path, way)
    stage = Stage(way, "read", len(teacher.stored))
    digest = teacher.examine(lambda _: stage.step())
    first = ((job.checkpoint.whet or {}).get("base_model") or {}).get("sha256")
    notes = job.notes
    if first is not None and first != digest:
        note = Message(
            "the teacher {teacher} is not the original that {student} was made from",
            teacher=taught(job).name,
            student=job.name,
        )
        notes = (*notes, *([] if note in notes else [note]))
    others = tuple(Checkpoint(folder).examine(lambda _: None) for folder in taught(job).others)
    one = dataclasses.replace(taught(job), sha256=digest, others_sha256=others)
    return dataclasses.replace(job, notes=notes, distillation=one)


def _steps_begun(run: Run) -> int | None:
    """Steps of the run that was stopped, which were timed when it began."""
    if not run.begun:
        return None
    request = run.request()
    (step,) = request["recipe"].get("steps", [{}])
    return step.get("distill", {}).get("steps")


def _recipe(model: str | Path, job: Job, asked: Distill) -> dict[str, Any]:
    one = taught(job)
    decided = {"steps": one.steps, "minutes": None, "tokens": None, "rate": one.rate, "at_once": one.at_once}
    named = {name: str(getattr(asked, name)) for name in ("teacher", "targets") if getattr(asked, name) is not None}
    return step_recipe(model, job, Distill, asked, **decided | named)


def _carried_out(run: Run, job: Job, recipe: Mapping[str, Any], way: Way) -> dict[str, Any]:
    with run.opened(request_of(job, recipe), job.solve, job.verify) as began:
        return carried_out(run, job, began, way, began["recipe"]["steps"][0]["distill"].get("track"))
