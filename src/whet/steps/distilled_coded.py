"""The end of a quantized student's training: the folder as it was, with other codes and scales, and the proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from whet.apply.job import Job
from whet.apply.run import Run
from whet.checkpoint import (
    MANIFEST,
    Checkpoint,
    attach_adapter,
    hashed_files,
    load_lighter,
    size_on_disk,
    write_bytes,
    write_json,
)
from whet.engines.torch import cached_outputs, outputs
from whet.errors import GateError
from whet.events import Stage, Way, note_event
from whet.messages import Message, to_json
from whet.report.numbers import with_error
from whet.steps.coded_student import copy_beside_codes
from whet.steps.lesson import Lesson, taught
from whet.steps.lineage import next_manifest
from whet.steps.options import RECIPE, recipe_text
from whet.steps.prune_proof import agree
from whet.train import tokens_of

# Of a linear's entry, what the solver found: it is not so any more.
_SOLVED = ("error", "unrepaired", "kl", "starved")


def finished_coded(
    run: Run,
    job: Job,
    lesson: Lesson,
    told: Mapping[str, Any],
    notes: list[Message],
    recipe: Mapping[str, Any],
    way: Way,
) -> dict[str, Any]:
    """Write and prove the folder; returns what a run tells. told: of the training. Every part may be repeated."""
    assert lesson.coded is not None and job.checkpoint.whet is not None
    out, source = run.out, job.checkpoint
    stage = Stage(way, "finish", 2)
    lesson.coded.write(out)
    notes = [*notes, *copy_beside_codes(source.path, out)]
    stage.step()
    check = _prove(run, job, lesson)
    found = lesson.agreement(_loaded(run, job, job.compute)) if lesson.held_out else {}
    for note in notes[len(job.notes) :]:
        way(note_event(note))
    write_bytes(out / RECIPE, recipe_text(recipe, "whet run recipe.yaml MODEL OUT").encode())
    write_bytes(out / "README.md", _card(job, told, found, notes).encode())
    before = job.checkpoint.whet
    gone = ("base_model", "lineage", "files", "format", "container", "notes", "verify", "linears", "gguf")
    manifest = next_manifest(
        source,
        {**job.record(), "training": told},
        name=job.name,
        sha256=job.sha256,
        container=before["container"],
        linears={a: {k: v for k, v in entry.items() if k not in _SOLVED} for a, entry in before["linears"].items()},
        verify={key: found[key] for key in ("kl", "top1") if key in found},
        notes=to_json(notes),
        **{key: value for key, value in before.items() if key not in gone},
    )
    manifest.files = hashed_files(out)
    write_json(out / MANIFEST, manifest.document())
    stage.step()
    return {
        "out": str(out),
        **job.choices(),
        "distillation": taught(job).record(),
        "training": told,
        "sizes": {"original": size_on_disk(source.path), "lighter": size_on_disk(out)},
        "loads_in": "modelling file" if before["container"] == "whet" else "transformers",
        **found,
        "check": check,
        "notes": notes,
    }


def _loaded(run: Run, job: Job, dtype: torch.dtype) -> Any:
    """The model of the folder, which has no manifest yet, as it is read with the student's."""
    manifest = job.checkpoint.whet or {}
    reading = manifest.get("reading") or manifest
    model = load_lighter(Checkpoint(run.out), reading["linears"], dtype, job.device, reading.get("names"))
    if "adapter" in manifest:
        attach_adapter(model, run.out, job.device)
    return model


@torch.no_grad()
def _prove(run: Run, job: Job, lesson: Lesson) -> dict[str, Any]:
    """Load the folder and raise GateError unless it computes what was trained, to the bit, with a cache too."""
    tokens = tokens_of(job.solve[0])[None, :64].to(job.device)
    before = outputs(lesson.student, tokens).float()
    if not torch.isfinite(before).all():
        raise GateError("{out}: the trained model computes values that are not finite on its own text.", out=run.out)
    loaded = _loaded(run, job, torch.float32)
    loaded.set_attn_implementation(lesson.student.config._attn_implementation)
    after = outputs(loaded, tokens).float()
    if not torch.equal(before, after):
        raise GateError(
            "{out}: {what} differ by {gap:.3g} in the logits. This is a defect of whet, or the family does something "
            "with its blocks that whet does not know; please report it.",
            out=run.out,
            what="what was written and what was trained",
            gap=(after - before).abs().max().item(),
        )
    result: dict[str, Any] = {"loaded": "whole", "before against after": 0.0}
    cached = cached_outputs(loaded, tokens)
    if cached is not None:
        result["cached against uncached"] = (cached[:, -1].float() - after[:, -1]).abs().max().item()
        agree(run.out, "generation with a cache and without", result["cached against uncached"], after)
    return result


def _card(job: Job, told: Mapping[str, Any], found: Mapping[str, Any], notes: Sequence[Message]) -> str:
    """The card of the folder that was trained, with what was done to it."""
    one = taught(job)
    card = (job.checkpoint.path / "README.md").read_text(encoding="utf-8").rstrip()
    what = "Codes, scales and all else" if one.rounded == "all" else "Scales"
    lines = [
        card,
        "",
        "## Trained after rounding",
        "",
        f"{what} of `{job.name}` were trained for {told['steps']:,} steps of about {one.batch:,} tokens to predict "
        f"what `{one.name}` predicts (loss `{one.objective.loss}`). The figures above are of before.",
    ]
    if "kl" in found:
        kl = with_error(found["kl"], found["kl_error"])
        lines += ["", f"On text that was kept out of training: KL to `{one.name}` {kl} nats per token."]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])
