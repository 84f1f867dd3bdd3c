"""The verb `merge`: an adapter becomes a part of the model it is for.

Into weights it is added in float32 and rounded to their type. Into codes with real zeros it is added to the zeros,
exactly, where it adds the same to all weights of each group (QA-LoRA): codes stay, and `undo` takes it out again. What
cannot be added to codes is kept beside them in the folder, or weights are rounded again, or are quantized no more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet import __version__
from whet.apply.job import model_name
from whet.apply.run import Run
from whet.checkpoint import (
    Adapter,
    Checkpoint,
    check_files,
    check_shape,
    copied_files,
    empty_model,
    model_config,
    read_adapter,
    refuse_unfinished,
    sha256,
)
from whet.errors import UsageError
from whet.events import OnEvent, Part, Stage, Way, note_event
from whet.messages import Message
from whet.paths import check_out
from whet.steps.coded import refuse_kept
from whet.steps.driver import announce
from whet.steps.merge_coded import beside, exactly, solved_again, to_dense, why_not_exact
from whet.steps.merge_files import merge_card
from whet.steps.merged import Merged, write_merged
from whet.steps.options import Merge
from whet.strict import checked

STEP = "merge"
_READING = 3e-9  # seconds a byte of weights that are hashed, read and written


@dataclass(frozen=True)
class Merging:
    """A run. how: `weights` of a dense base, else one of the ways of `Merge.how`. digest: SHA-256 of the base."""

    asked: Merge
    checkpoint: Checkpoint
    adapter: Adapter
    how: str
    seed: int
    device: str
    notes: tuple[Message, ...]
    digest: str | None = None

    def record(self) -> dict[str, Any]:
        """What the lineage says of it."""
        weights = self.adapter.folder / "adapter_model.safetensors"
        about = {"name": model_name(self.adapter.folder.resolve()), "sha256": sha256(weights)}
        undone = {"undo": True} if self.asked.undo else {}
        return {"step": STEP, "how": self.how, **undone, "adapter": about, "model_sha256": self.digest}


def merge(
    base: str | Path,
    adapter: str | Path,
    out: str | Path,
    asked: Merge,
    *,
    seed: int,
    device: str,
    dry_run: bool,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Merge the adapter in a folder into `base`, in the folder `out`; returns what `whet.merge` does."""
    asked.check()
    check_out(out, base)
    run = Run(out)
    on_event = run.telling(on_event)
    plan = _decide(base, adapter, asked, seed, device)
    run.check_free(plan.checkpoint.path)
    needs = _needs(plan)
    announce(run, needs, on_event)
    if dry_run:
        return {"dry_run": True, "out": str(out), "how": plan.how, **needs, "notes": list(plan.notes)}
    return _carry_out(run, plan, on_event)


def resume_merge(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run: it begins again, as nothing of it takes long."""
    asked = checked(Merge, dict(request["asked"]), str(run.out))
    plan = _decide(request["model"], request["adapter"], asked, request["seed"], request["device"])
    return _carry_out(run, plan, run.telling(on_event))


def _decide(base: str | Path, adapter: str | Path, asked: Merge, seed: int, device: str) -> Merging:
    """What is done. Raises UsageError for what cannot be, with what can."""
    given = read_adapter(adapter)
    checkpoint = Checkpoint(base)
    refuse_unfinished(checkpoint.path)
    model = empty_model(checkpoint, model_config(checkpoint).dtype or checkpoint.dtype)
    shapes = {name: tuple(module.weight.shape) for name, module in model.named_modules() if hasattr(module, "weight")}
    for name, one in given.factors.items():
        check_shape(name, one, shapes.get(name))
    notes = list(_about_base(checkpoint, given))
    if checkpoint.dense:
        if asked.how is not None or asked.undo:
            raise UsageError(
                "{folder} is not quantized: the adapter is added to its weights, and {option} is of quantized models. "
                "Leave it out.",
                folder=checkpoint.path,
                option="undo" if asked.undo else "how",
            )
        return Merging(asked, checkpoint, given, "weights", seed, device, tuple(notes))
    if checkpoint.whet is None:
        raise UsageError(
            "{folder} was quantized by another tool, and whet merges into originals and its own folders. Merge into "
            "the original, and quantize that.",
            folder=checkpoint.path,
        )
    if checkpoint.whet.get("graph") is not None:
        raise UsageError(
            "{folder} holds a graph, which would not have the adapter. Merge into the folder it was made from, "
            "and export "
            "that again.",
            folder=checkpoint.path,
        )
    if checkpoint.whet.get("gguf") is not None:
        raise UsageError(
            "{folder} holds a .gguf, which would not have the adapter. Write the adapter as a .gguf of its own (whet "
            "export ADAPTER --base {folder}), which llama.cpp loads beside it.",
            folder=checkpoint.path,
        )
    refuse_kept(checkpoint)
    return Merging(asked, checkpoint, given, _way(checkpoint, given, asked, notes), seed, device, tuple(notes))


def _way(checkpoint: Checkpoint, given: Adapter, asked: Merge, notes: list[Message]) -> str:
    """How an adapter goes into a quantized model. Raises UsageError where it cannot go as was asked for."""
    why = why_not_exact(checkpoint, given)
    if asked.how == "exact" or asked.undo:
        if why is not None:
            raise UsageError(
                "{folder}: the adapter cannot be merged into codes exactly: {why}. Keep it beside the codes (--how "
                "beside), or round the weights again (--how round).",
                folder=checkpoint.path,
                why=why,
            )
        return "exact"
    if asked.how in ("round", "dense"):
        return asked.how
    if given.sized:
        raise UsageError(
            "{adapter} is a DoRA, which brings whole rows of weights to other lengths: it can be neither added to "
            "codes nor kept beside them as factors. Round the weights again (--how round), or write weights that are "
            "not quantized (--how dense).",
            adapter=given.folder,
        )
    if why is None and asked.how is None:
        return "exact"
    if why is not None:
        notes.append(
            Message(
                "the adapter is kept beside the codes, as a part of the folder: it cannot be merged into them exactly, "
                "because {why}. --how round rounds the weights again instead.",
                why=why,
            )
        )
    return "beside"


def _about_base(checkpoint: Checkpoint, given: Adapter) -> list[Message]:
    """A note where the adapter was trained on another model."""
    file = given.folder / "whet.json"
    if not file.is_file():
        return []
    said = (json.loads(file.read_text(encoding="utf-8")).get("adapter") or {}).get("base") or {}
    name = model_name(checkpoint.path.resolve())
    if said.get("name") in (None, name):
        return []
    return [
        Message(
            "the adapter was trained on {trained}, and this is {name}: what it was measured to gain is of that one",
            trained=said["name"],
            name=name,
        )
    ]


def _needs(plan: Merging) -> dict[str, Any]:
    size = plan.checkpoint.nbytes
    wide = sum(one.nbytes for one in plan.checkpoint.tensors.values()) * (8 if plan.how in ("round", "dense") else 2)
    largest = max(info.nbytes for info in plan.checkpoint.tensors.values())
    disk = size + 2**20 + (8 * size if plan.how in ("round", "dense") else 0)
    return {"memory": int(6e8 + wide + 4 * largest), "disk": int(disk), "seconds": 2 + 4 * _READING * size}


def _carry_out(run: Run, plan: Merging, on_event: OnEvent) -> dict[str, Any]:
    """Begin the run or go on with it, and see it through."""
    started = time.monotonic()
    reading = _READING * plan.checkpoint.nbytes
    way = Way(on_event, [Part("read", reading), Part("finish", 1 + 2 * reading)])
    check_files(plan.checkpoint.path, way)
    stage = Stage(way, "read", len(plan.checkpoint.stored))
    plan = dataclasses.replace(plan, digest=plan.checkpoint.examine(lambda _: stage.step()))
    with run.opened(_request(plan)) as began:
        for note in plan.notes:
            way(note_event(note))
        made = _made(run, plan, began["files"], way)
        for note in made["notes"][len(plan.notes) :]:
            way(note_event(note))
        run.close()
    return {"out": str(run.out), "how": plan.how, **made, "seconds": {"this call": time.monotonic() - started}}


def _request(plan: Merging) -> dict[str, Any]:
    files = {name: sha256(file) for name, file in copied_files(plan.checkpoint.path).items()}
    asked = Merge.model_construct(**plan.asked.model_dump(include=set(Merge.model_fields))).document()
    whole = [plan.record(), asked, files, plan.seed]
    return {
        "whet": __version__,
        "step": STEP,
        "model": str(plan.checkpoint.path.resolve()),
        "adapter": str(plan.adapter.folder.resolve()),
        "asked": asked,
        "seed": plan.seed,
        "device": plan.device,
        "record": plan.record(),
        "recipe": {},
        "files": files,
        "fingerprint": hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest(),
    }


def _made(run: Run, plan: Merging, files: Mapping[str, str], way: Way) -> dict[str, Any]:
    """The folder by the way that was decided on."""
    notes, record, factors = list(plan.notes), plan.record(), plan.adapter.factors
    stage = Stage(way, "finish", 1)
    if plan.how == "exact":
        told = exactly(run.out, plan.checkpoint, factors, record, notes, undo=plan.asked.undo)
    elif plan.how == "beside":
        told = beside(run.out, plan.checkpoint, factors, record, notes)
    elif plan.how == "dense":
        told = to_dense(run.out, plan.checkpoint, factors, record, notes, files, plan.digest)
    elif plan.how == "round":
        told = solved_again(
            run, plan.checkpoint, factors, record, notes, files, plan.digest, plan.asked, way, plan.seed, plan.device
        )
    else:
        told = write_merged(
            run.out,
            plan.checkpoint,
            Merged(factors),
            files,
            record=record,
            digest=plan.digest,
            card=merge_card(plan.checkpoint, plan.adapter.folder),
            notes=notes,
            verify={},
        )
    stage.step()
    return {**told, "notes": notes}
