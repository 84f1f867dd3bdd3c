"""Distillation carried out: trained, written under the names it had, proved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.apply.job import Job
from whet.apply.run import Run
from whet.budget import tensor_bytes
from whet.checkpoint import (
    MANIFEST,
    copy_beside,
    empty_model,
    hashed_files,
    load_model,
    size_on_disk,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.engines.torch import cached_outputs, outputs
from whet.errors import GateError, UsageError
from whet.events import Stage, Way, note_event
from whet.messages import Message, to_json
from whet.steps.config import write_config
from whet.steps.distill_card import distill_card
from whet.steps.distilled_coded import finished_coded
from whet.steps.lesson import LOOKS, Lesson, taught
from whet.steps.lineage import next_manifest
from whet.steps.options import RECIPE, recipe_text
from whet.steps.own_text import OWN
from whet.steps.prune_proof import agree
from whet.steps.rates import multiplications_per_second
from whet.train import Tracker, tokens_of

MOST_STEPS = 10**6
_TIMED = 3  # steps that are timed, after one that is not
_PLAIN = 512  # tokens of a window, up to which a table of attention is small
_JUDGED = 4096  # tokens of it together
_WARM_UP, _MOST_WARM_UP = 0.05, 100  # of the steps
# What Python, torch and transformers take, and activations of a block that are kept for the way back: about so many
# numbers for each channel of the stream and of its feed-forward.
_BASE_MEMORY, _OF_STREAM, _OF_INNER = 700 * 2**20, 16, 4
_AT_HEAD = 6 * 2**26  # tables of logits of some rows, on both sides
_WRITING = 8.0  # multiplications and additions a weight that a token takes which is written one by one
# Products are not all that a training step does; of the embedded model's they are half.
_BESIDE = 2.0


def needs_of(job: Job, minutes: float | None = None) -> dict[str, Any]:
    """What a run takes: `bytes`, `memory`, `disk`, `seconds` (rough, unless `minutes` says it) and its `stages`."""
    one, parts = taught(job), job.anatomy
    if job.checkpoint.dense:
        before = tensor_bytes(parts, job.checkpoint.stored, {})
        own = sum(math.prod(shape) for shape in job.checkpoint.shapes.values())
    else:
        before = _parts_of(job)
        own = weights_of(job)
    teachers = () if one.teacher is None else (one.teacher, *one.others)
    theirs = sum(file.stat().st_size for folder in teachers for file in folder.glob("*.safetensors"))
    width, inner = parts.embedding.shape[1], max(linear.shape[0] for linear in parts.linears())
    a_block = 4 * one.at_once * (_OF_STREAM * width + _OF_INNER * inner)
    kept = 4 * one.at_once * width * len(parts.blocks) if one.checkpointing else a_block * (len(parts.blocks) - 1)
    # of a quantized one latent weights too, from which its weights and their gradient are computed
    wide = 16 if job.checkpoint.dense else 12 if one.rounded == "scales" else 24
    alone = _BASE_MEMORY + wide * own + a_block + kept + _AT_HEAD
    teacher = theirs * 4 // max(2, job.dtype.itemsize)
    # what draws targets is gone before training begins
    kept_too = one.targets is None or one.own_text
    memory = alone + teacher if kept_too else max(alone, _BASE_MEMORY + teacher + _AT_HEAD)
    rate = multiplications_per_second()
    tokens = one.steps * one.batch
    again = 8.0 if one.checkpointing else 6.0
    stages = {}
    if job.to_write:
        stages["write"] = _WRITING * theirs / 2 * job.to_write / rate
    if one.targets is not None:
        text = job.to_write + sum(map(len, (*job.solve, *job.verify)))
        stages["draw"] = _BESIDE * text * theirs / rate
    trained = _BESIDE * tokens * (again * own + (theirs if one.targets is None else 0)) / rate
    # what the student writes is written token by token, and read by both
    owned = one.own_text * OWN * tokens * _WRITING * (own + (theirs / 2 if one.writer == "switch" else 0)) / rate
    trained += owned + (0 if one.targets is None else one.own_text * OWN * _BESIDE * tokens * theirs / rate)
    stages["train"] = trained if minutes is None else 60 * minutes
    stages["finish"] = 0.5 + 1e-8 * before["total"]
    return {
        "bytes": {"before": before, "after": before, "ratio": 1.0},
        "memory": int(memory),
        # the state to go on from, the last good one, the start and the best, all in float32
        "disk": int(before["total"] * 1.02) + 4 * 8 * own + 2**20,
        "seconds": sum(stages.values()),
        "stages": stages,
    }


def weights_of(job: Job) -> int:
    """Weights of the student's model."""
    return sum(parameter.numel() for parameter in empty_model(job.checkpoint, torch.float32).parameters())


def _parts_of(job: Job) -> dict[str, int]:
    """Bytes by part of a quantized folder, as `tensor_bytes` gives those of a dense one."""
    found = size_on_disk(job.checkpoint.path)
    parts = {name: found[name] for name in ("linears", "embedding", "head", "other")}
    return {**parts, "total": sum(parts.values())}


def timed_steps(job: Job, minutes: float) -> int:
    """Steps that fit into so many minutes here, by taking a few on a model that is thrown away."""
    lesson = Lesson(job)
    lesson.train(1, None, None, own=0)
    share = taught(job).own_text
    seconds = lesson.train(_TIMED, None, None, own=0)["seconds"] / _TIMED
    if share:
        seconds = (1 - share) * seconds + share * lesson.train(1, None, None, own=1)["seconds"]
    started = time.monotonic()
    lesson.losses()
    looking = (LOOKS + 1) * (time.monotonic() - started)
    return max(1, min(MOST_STEPS, int((60 * minutes - looking) / seconds)))


def carried_out(run: Run, job: Job, began: Mapping[str, Any], way: Way, track: str | None = None) -> dict[str, Any]:
    """See a run through that is begun or gone on with. track: the tracker that is told how it goes."""
    started = time.monotonic()
    for note in job.notes:
        way(note_event(note))
    lesson = Lesson(job)
    tracker = None if track is None else Tracker(track, run.out.name, Path(f"{run.out}-{track}"))
    try:
        trained = lesson.train(taught(job).steps, run, way, tracker=tracker)
    finally:
        if tracker is not None:
            tracker.close()
    result = _finished(run, job, lesson, trained, began, way)
    run.close()
    return {**result, "seconds": {"this call": time.monotonic() - started, "training": trained["seconds"]}}


def _finished(
    run: Run, job: Job, lesson: Lesson, trained: Mapping[str, Any], began: Mapping[str, Any], way: Way
) -> dict[str, Any]:
    """Weights, the student's other files, proof, card and manifest. Every part may be repeated."""
    out = run.out
    told = {key: trained[key] for key in ("steps", "rewinds", "collapsed", "held_out") if key in trained}
    if lesson.coded is not None:
        recipe = _portable(began["recipe"])
        return finished_coded(run, job, lesson, told, [*job.notes, *_notes(trained)], recipe, way)
    stage = Stage(way, "finish", 2)
    _write(run, job, lesson.student)
    write_config(out, job)
    copy_beside(job.original.path, out, began["files"])
    stage.step()
    check = _prove(run, job, lesson.student)
    written = load_model(out, job.compute, job.device)
    found: dict[str, Any] = lesson.agreement(written) if lesson.held_out else {}
    notes = [*job.notes, *_notes(trained)]
    for note in notes[len(job.notes) :]:
        way(note_event(note))
    write_bytes(out / RECIPE, recipe_text(_portable(began["recipe"]), "whet run recipe.yaml MODEL OUT").encode())
    write_bytes(out / "README.md", distill_card(job, told, found, notes).encode())
    manifest = next_manifest(
        job.original,
        {**job.record(), "training": told},
        name=job.name,
        sha256=job.sha256,
        container="dense",
        target=job.target,
        kept=(job.checkpoint.whet or {}).get("kept"),
        verify={key: found[key] for key in ("kl", "top1") if key in found},
        notes=to_json(notes),
        files=hashed_files(out),
    )
    write_json(out / MANIFEST, manifest.document())
    stage.step()
    return {
        "out": str(out),
        **job.choices(),
        "distillation": taught(job).record(),
        "training": told,
        "sizes": {"original": size_on_disk(job.original.path), "lighter": size_on_disk(out)},
        "loads_in": "transformers",
        **found,
        "check": check,
        "notes": notes,
    }


def _portable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without places on this machine; a recipe's step has its original for teacher."""
    (step,) = recipe["steps"]
    options = dict(step["distill"])
    for name in ("teacher", "targets", "more_teachers"):
        if name in options and any(Path(part).is_absolute() for part in options[name].split(",")):
            del options[name]
    return {**recipe, "steps": [{"distill": options}]}


def _notes(trained: Mapping[str, Any]) -> list[Message]:
    held_out, found = trained.get("held_out"), list[Message]()
    if "collapsed" in trained:
        found.append(
            Message(
                "what the student wrote itself collapsed after {step} steps, so its training ended there, with the "
                "best weights before: give less own-text or a lower learning rate (--rate)",
                step=trained["collapsed"],
            )
        )
    if held_out is None or held_out["helped"]:
        return found
    return [
        *found,
        Message(
            "training did not help: KL on held-out text was {start:.4g} before and {best:.4g} at best, which chance "
            "may be. The weights are as they were. Give more text, more steps or another learning rate (--rate).",
            start=held_out["start"],
            best=held_out["best"],
        ),
    ]


@torch.no_grad()
def _write(run: Run, job: Job, student: Any) -> None:
    """Write every tensor of the student's folder, with the weights as they were trained, into files of the same names;
    `student` has them as they were written from then on."""
    parts, stored = job.anatomy, job.checkpoint.stored
    params = dict(student.named_parameters(remove_duplicate=False))
    moved = {linear.parameter: linear for linear in parts.linears() if linear.address in parts.moved()}
    files: dict[str, dict[str, Tensor]] = {}
    for name, info in stored.items():
        if name == parts.dropped:
            continue
        if name in moved:
            source: Callable[[], Tensor] | None = _view(moved[name], params)
        else:
            param = params.get(parts.name(name))
            source = None if param is None else param.detach
        if source is None or not info.dtype.is_floating_point:
            files.setdefault(info.file.name, {})[name] = job.checkpoint.read(name)
            continue
        tensor = source().to(info.dtype)
        if not torch.isfinite(tensor).all():
            raise UsageError(
                "{name}: trained weights exceed what {dtype} holds. Convert the model to bfloat16 or float32 first.",
                name=name,
                dtype=info.dtype,
            )
        source().copy_(tensor)
        files.setdefault(info.file.name, {})[name] = tensor.cpu().contiguous()
    for file, tensors in files.items():
        write_tensors(run.out / file, tensors)
    if len(files) > 1:
        mapping = {name: file for file, tensors in files.items() for name in tensors}
        total = sum(tensor.nbytes for tensors in files.values() for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(mapping.items()))}
        write_json(run.out / "model.safetensors.index.json", index)


def _view(linear: Any, params: Mapping[str, Tensor]) -> Callable[[], Tensor]:
    def of() -> Tensor:
        held: Tensor = linear.held.of(params[linear.held.parameter].detach())
        return held.t() if linear.transposed else held

    return of


@torch.no_grad()
def _prove(run: Run, job: Job, student: Any) -> dict[str, Any]:
    """Load the folder and raise GateError unless it computes what was trained, with a cache and without."""
    tokens = tokens_of(job.solve[0])[None, :64].to(job.device)
    before = outputs(student, tokens).float()
    if not torch.isfinite(before).all():
        raise GateError("{out}: the trained model computes values that are not finite on its own text.", out=run.out)
    loaded = load_model(run.out, torch.float32, job.device)
    after = outputs(loaded, tokens).float()
    result: dict[str, Any] = {"loaded": "whole", "before against after": (after - before).abs().max().item()}
    agree(run.out, "what was written and what was trained", result["before against after"], before)
    cached = cached_outputs(loaded, tokens)
    if cached is not None:
        result["cached against uncached"] = (cached[:, -1].float() - after[:, -1]).abs().max().item()
        agree(run.out, "generation with a cache and without", result["cached against uncached"], after)
    return result
