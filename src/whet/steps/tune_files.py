"""What the step `tune` writes: an adapter's folder, or a whole model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from whet.adapt import Parametrization
from whet.checkpoint import (
    CONFIG,
    MANIFEST,
    WEIGHTS,
    Factors,
    adapter_config,
    adapter_tensors,
    attach,
    hashed_files,
    load_model,
    read_adapter,
    read_card,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.engines.torch import outputs
from whet.errors import GateError
from whet.events import OnEvent, Stage, note_event
from whet.messages import Message, to_json
from whet.report.numbers import with_error
from whet.steps.lineage import next_manifest
from whet.steps.merged import Merged, write_merged
from whet.steps.options import RECIPE, recipe_text
from whet.steps.proof import PROVED
from whet.steps.tuning import Tuning

_AGAIN = "whet run recipe.yaml MODEL OUT"


def write_tuned(
    out: Path,
    plan: Tuning,
    model: Any,
    found: Mapping[str, Parametrization],
    result: Mapping[str, Any],
    files: Mapping[str, str],
    on_event: OnEvent,
) -> dict[str, Any]:
    """Make the folder whole. May be repeated. model: as it was trained. result: of the training. files: those of the
    base that a whole model takes over, with their SHA-256. Returns what there is to tell."""
    held = dict(result["held_out"])
    notes = [*plan.notes, *_notes(plan, held)]
    for note in notes[len(plan.notes) :]:
        on_event(note_event(note))
    stage = Stage(on_event, "finish", 2)
    write_bytes(out / RECIPE, recipe_text(plan.recipe(), _AGAIN).encode())
    stored = {name: one.stored() for name, one in found.items()}
    told = {"held_out": held, "trained": _trained(model), "notes": notes}
    stage.step()
    if not plan.whole:
        check = _write_adapter(out, plan, model, stored, held, notes)
        stage.step()
        return {**told, "bytes": (out / WEIGHTS).stat().st_size, "check": check}
    merged = Merged.of_model(model) if plan.kind is None else Merged(stored)
    made = write_merged(
        out,
        plan.checkpoint,
        merged,
        files,
        record=plan.record(),
        digest=plan.digest,
        card=_card(plan, held, notes),
        notes=notes,
        verify=_verified(held, plan),
    )
    stage.step()
    return {**told, **made}


def _write_adapter(
    out: Path,
    plan: Tuning,
    model: Any,
    stored: Mapping[str, Factors],
    held: Mapping[str, Any],
    notes: Sequence[Message],
) -> dict[str, Any]:
    """The files of the adapter, and the proof that they say what was trained."""
    kind = plan.kind
    assert kind is not None
    by = 2 if kind.inside and plan.asked.original is None else 1  # what is taken out of the base is half of it
    config = adapter_config(
        plan.modules,
        by * plan.rank,
        plan.parts.task,
        alpha=by * plan.alpha,
        base=plan.base,
        rooted=kind.rooted,
        sized=kind.sized,
    )
    tensors: dict[str, torch.Tensor] = {}
    for name, one in stored.items():
        tensors |= adapter_tensors(name, one.b, one.a, one.magnitude)
    write_tensors(out / WEIGHTS, tensors)
    write_json(out / CONFIG, config | {"rank_pattern": {}, "alpha_pattern": {}})
    check = _proved(out, plan, model)
    write_bytes(out / "README.md", _card(plan, held, notes).encode())
    manifest = next_manifest(
        plan.checkpoint,
        plan.record(),
        name=plan.name,
        sha256=plan.digest,
        container="adapter",
        target="transformers",
        adapter={
            "kind": kind.name,
            "rank": plan.rank,
            "alpha": plan.alpha,
            "modules": len(plan.modules),
            "base": {"name": plan.name, "sha256": plan.digest},
        },
        verify=_verified(held, plan),
        notes=to_json(list(notes)),
        files=hashed_files(out),
    )
    write_json(out / MANIFEST, manifest.document())
    return check


@torch.no_grad()
def _proved(out: Path, plan: Tuning, model: Any) -> dict[str, Any]:
    """Raises GateError unless the files, beside the base read once more, give what was trained."""
    written = read_adapter(out)
    if plan.checkpoint.nbytes > PROVED:
        return {"loaded": "not run: the model is too large to load beside this run"}
    again = load_model(plan.checkpoint.path, plan.dtype, plan.device)
    attach(again, written.factors, plan.device)
    tokens = plan.solve[0][0][None, :64]
    mine, theirs = outputs(model, tokens).float(), outputs(again, tokens).float()
    gap = (mine - theirs).abs().max().item()
    if not gap <= 1e-5 * max(1.0, mine.abs().max().item()):
        raise GateError(
            "{out}: the adapter that was written gives other logits than the one that was trained (largest "
            "difference {difference:.3g}). This is a defect of whet.",
            out=out,
            difference=gap,
        )
    return {"loaded": "the same logits" if gap == 0 else f"the same logits within {gap:.2g}"}


def _trained(model: Any) -> int:
    return sum(param.numel() for param in model.parameters() if param.requires_grad)


def _verified(held: Mapping[str, Any], plan: Tuning) -> dict[str, float]:
    what = "loss" if plan.asked.teacher is None else "kl"
    after = held["best"] if held["helped"] else held["start"]
    return {f"{what}_before": held["start"], f"{what}_after": after, f"{what}_gain_error": held["error"]}


def _notes(plan: Tuning, held: Mapping[str, Any]) -> list[Message]:
    if held["helped"]:
        return []
    return [
        Message(
            "nothing was gained on the held-out text by more than its standard error, so what was written is the "
            "start: give more text or steps, or another learning rate"
        )
    ]


def _card(plan: Tuning, held: Mapping[str, Any], notes: Sequence[Message]) -> str:
    """README.md."""
    before = plan.checkpoint.whet or {}
    base = (before.get("base_model") or {}).get("name") or plan.name
    front = dict(read_card(plan.checkpoint.path / "README.md")) | {"base_model": base}
    tags = front.get("tags")
    front["tags"] = [*(tags if isinstance(tags, list) else []), "whet", "tuned"]
    if not plan.whole:
        front |= {"library_name": "peft", "base_model_relation": "adapter"}
    what = "every parameter" if plan.kind is None else f"{plan.kind.name} of rank {plan.rank}"
    learnt = "the next token" if plan.asked.teacher is None else f"what `{Path(str(plan.asked.teacher)).name}` predicts"
    unit = "nats a token" if plan.asked.teacher is None else "nats of KL a token"
    gain = with_error(held["start"] - held["best"], held["error"])
    after = f"{held['best']:.4f} (gained {gain}, best after step {held['step']})" if held["helped"] else "not lower"
    lines = [
        "---",
        yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip(),
        "---",
        f"# {base}, tuned by whet",
        "",
        f"`{plan.name}` was trained on {learnt} of text for {plan.steps} steps: {what}.",
        "",
        f"On text that was held out: {held['start']:.4f} {unit} before, {after} after.",
    ]
    if not plan.whole:
        lines += [
            "",
            "## Loading",
            "",
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
            "",
            f'base = AutoModelForCausalLM.from_pretrained("{plan.name}")',
            'model = PeftModel.from_pretrained(base, "THIS_FOLDER")',
            "```",
            "",
            "`whet merge BASE THIS_FOLDER OUT` makes it a part of the model.",
        ]
    if notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in notes)]
    return "\n".join([*lines, "", "`whet.json` holds every choice and the SHA-256 of every file.", ""])
