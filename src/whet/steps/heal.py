"""The step `heal`: a lighter folder that lost skills in, the same folder with them back out, or nothing.

The order: the original and the folder answer the questions that gate; the skills that are hurt are found; the original
solves problems like those that flipped; the folder practises them, and what it can still do beside them, by `distill`
or `tune`; it answers the gate's questions again, and is kept unless a skill fell. Of the run's folder, `answers.json`,
`practice.safetensors`, `made` and `after.json` each end one of these, so a run that was killed goes on behind the last.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet import __version__
from whet.apply.run import Run
from whet.checkpoint import Checkpoint, check_files, refuse_unfinished
from whet.engines.torch import resolve_device
from whet.errors import UsageError, did_you_mean
from whet.events import OnEvent, Part, Stage, Way, note_event
from whet.measure.items import Item, by_skill, read_skills
from whet.measure.practice import in_halves
from whet.measure.sides import item_tokens, seconds_a_token
from whet.messages import Message, to_json
from whet.paths import check_out
from whet.steps.driver import announce, kept_windows
from whet.steps.heal_work import Healing, healed, practice_needs
from whet.steps.options import Heal
from whet.steps.request import Request
from whet.strict import checked
from whet.text.calibration import read_windows

STEP = "heal"


def heal(
    folder: str | Path,
    out: str | Path,
    asked: Heal,
    *,
    seed: int,
    device: str,
    dry_run: bool,
    on_event: OnEvent,
    left: bool = False,
) -> dict[str, Any]:
    """Give back what `folder` lost, into the folder `out`; returns what `whet.heal` does. left: where nothing is kept,
    leave a copy of `folder` in `out`, as a recipe goes on from it."""
    check(asked)
    check_out(out, folder)
    run = Run(out)
    on_event = run.telling(on_event)
    plan = decide_heal(folder, asked, seed=seed, device=device, left=left)
    run.check_free(plan.checkpoint.path)
    needs = _needs(plan)
    announce(run, needs, on_event)
    if dry_run:
        return {"dry_run": True, "out": str(out), "how": plan.how, **needs, "notes": list(plan.notes)}
    return _carry_out(run, plan, needs, on_event)


def run(request: Request) -> dict[str, Any]:
    """The step of a recipe: from its original, on the questions that are set aside for steps, with its text."""
    options = request.options.model_dump()
    if options["original"] is None:
        options["original"] = request.original
    if options["skills"] is None and request.texts.items:
        options["skills"] = [item.record() for item in request.texts.items]
    if options["text"] is None and request.texts.solve is not None:
        options |= {"text": list(request.texts.solve), "chat": False}
    asked = Heal.of(STEP, **options)
    if request.dry_run and Path(request.source) == Path(str(asked.original)):
        asked = asked.model_copy(update={"how": None if asked.how == "scales" else asked.how})
    return heal(
        request.source,
        request.out,
        asked,
        seed=request.seed,
        device=request.device,
        dry_run=request.dry_run,
        on_event=request.on_event,
        left=True,
    )


def check(options: Heal) -> None:
    """Raises UsageError for options that do not go together, without a model."""
    options.check()


def resume_heal(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    torch.set_num_threads(request["record"]["threads"])
    asked = checked(Heal, dict(request["asked"]), str(run.out), by_name=True)
    windows, _ = kept_windows(run)
    plan = decide_heal(
        request["model"],
        asked,
        seed=request["record"]["seed"],
        device=request["record"]["device"],
        left=request["left"],
        windows=windows,
    )
    return _carry_out(run, plan, _needs(plan), run.telling(on_event))


def decide_heal(
    folder: str | Path,
    asked: Heal,
    *,
    seed: int,
    device: str,
    left: bool = False,
    windows: Sequence[Tensor] | None = None,
) -> Healing:
    """What a run does. windows: of the text, of a stopped run. Raises UsageError for what cannot be, with what can."""
    checkpoint = Checkpoint(folder)
    refuse_unfinished(checkpoint.path)
    if asked.original is None:
        raise UsageError(
            "No original was given. Name the model that {folder} was made from: --original.", folder=folder
        )
    if asked.skills is None:
        raise UsageError("No questions were given to heal by. Give --skills FILE, as whet compare takes it.")
    learnt, gate = _questions(asked, seed)
    named = _named(asked, learnt, gate)
    if asked.how == "scales" and checkpoint.dense:
        raise UsageError(
            "{folder} is not quantized, so it has no scales to train. Give --how weights or adapter.", folder=folder
        )
    notes = list[Message]()
    if windows is None:
        windows, about = _text(asked, checkpoint, seed, notes)
    else:
        about = None
    return Healing(
        asked=asked,
        checkpoint=checkpoint,
        original=Checkpoint(asked.original),
        learnt=tuple(learnt),
        gate=tuple(gate),
        named=tuple(named),
        how=asked.how or "weights",
        windows=tuple(windows),
        text=about,
        seed=seed,
        device=resolve_device(device),
        left=left,
        notes=tuple(notes),
    )


def _questions(asked: Heal, seed: int) -> tuple[list[Item], list[Item]]:
    """What is practised on and what gates. Raises UsageError where they share a prompt."""
    assert asked.skills is not None
    items = read_skills(asked.skills)
    if asked.practice is None:
        return in_halves(items, seed)
    learnt = read_skills(asked.practice)
    gated = {(item.prompt, item.choices) for item in items}
    groups = {(item.skill, item.group) for item in items if item.group is not None}
    shared = [one for one in learnt if (one.prompt, one.choices) in gated or (one.skill, one.group) in groups]
    if shared:
        raise UsageError(
            "{count} questions of practice are among those of skills, or of a group of theirs, such as {prompt!r}: "
            "what gates must not be practised on. Take them out of one.",
            count=len(shared),
            prompt=shared[0].prompt[:60],
        )
    return learnt, items


def _named(asked: Heal, learnt: Sequence[Item], gate: Sequence[Item]) -> list[str]:
    """The skills that were named. Raises UsageError for one without questions to gate or to practise on."""
    known, practised = by_skill(gate), by_skill(learnt)
    for name in asked.named:
        if name not in known:
            raise UsageError(
                "There are no questions of the skill {name}.{near} Skills: {known}.",
                name=name,
                near=did_you_mean(name, known),
                known=", ".join(known),
            )
        if name not in practised:
            raise UsageError(
                "There is no question of {name} to practise on. Give more of them, or a file of such (--practice).",
                name=name,
            )
    return asked.named


def _text(
    asked: Heal, checkpoint: Checkpoint, seed: int, notes: list[Message]
) -> tuple[list[Tensor], Mapping[str, Any] | None]:
    """Windows of ordinary text, and what the lineage tells of it."""
    if asked.text is None:
        notes.append(
            Message(
                "no ordinary text was given: questions of the other skills alone hold in place what is not practised "
                "(--text FILE)"
            )
        )
        return [], None
    found = read_windows(
        checkpoint,
        asked.text,
        None,
        field=asked.field,
        chat=asked.chat,
        samples=asked.most_samples,
        window=asked.window,
        seed=seed,
        skip_bad=asked.skip_bad,
    )
    notes += found.notes
    return [window for window in (*found.solve, *found.verify) if len(window) > 1], found.about


def _needs(plan: Healing) -> dict[str, Any]:
    """Seconds, and bytes of memory and disk, that a run takes."""
    needs = practice_needs(plan)
    each = seconds_a_token(plan.original.path)
    asking = 4 * each * item_tokens(plan.gate)
    solving = 4 * each * item_tokens(plan.learnt[: 2 * plan.asked.problems])
    stages = {"skills, original": asking, "skills, lighter": asking, "solve": 2 * solving, "train": needs["seconds"]}
    stages["skills, healed"] = asking
    return {
        "memory": needs["memory"],
        "disk": 2 * needs["disk"] + 2**20,
        "seconds": sum(stages.values()),
        "stages": stages,
    }


def _request(plan: Healing) -> dict[str, Any]:
    """What the run depends on, as it is kept beside it."""
    asked = plan.asked.model_dump(include=set(Heal.model_fields))
    for name in ("skills", "practice"):
        asked[name] = None
    asked |= {"text": None, "original": str(plan.original.path.resolve())}
    if plan.asked.practice is None:
        assert plan.asked.skills is not None
        questions = {"skills": [item.record() for item in read_skills(plan.asked.skills)]}
    else:
        apart = {"skills": plan.gate, "practice": plan.learnt}
        questions = {name: [item.record() for item in items] for name, items in apart.items()}
    texts = [hashlib.sha256(window.numpy().tobytes()).hexdigest() for window in plan.windows]
    record = {
        "model_sha256": plan.digest,
        "original_sha256": plan.original_digest,
        "seed": plan.seed,
        "device": plan.device,
        "threads": torch.get_num_threads(),
        "how": plan.how,
        **{name: asked[name] for name in ("skill", "to", "problems", "steps", "minutes", "batch", "rate", "rank")},
    }
    whole = [record, questions, texts, asked]
    return {
        "whet": __version__,
        "step": STEP,
        "model": str(plan.checkpoint.path.resolve()),
        "asked": asked | questions,
        "record": record,
        "recipe": {},
        "left": plan.left,
        "about": to_json(plan.text),
        "notes": to_json(list(plan.notes)),
        "items": hashlib.sha256(json.dumps(questions, sort_keys=True).encode()).hexdigest(),
        "fingerprint": hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest(),
    }


def _carry_out(run: Run, plan: Healing, needs: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Begin the run or go on with it, and see it through."""
    started = time.monotonic()
    parts = [Part("read", 1e-8 * (plan.checkpoint.nbytes + plan.original.nbytes))]
    way = Way(
        on_event, [*parts, *(Part(name, seconds) for name, seconds in needs["stages"].items()), Part("finish", 1)]
    )
    digests = []
    for one in (plan.checkpoint, plan.original):
        check_files(one.path, way)
        digests.append(one.examine())
    Stage(way, "read", 1).step()
    plan = dataclasses.replace(plan, digest=digests[0], original_digest=digests[1])
    with run.opened(_request(plan), plan.windows) as began:
        plan = dataclasses.replace(plan, notes=tuple(map(Message.read, began["notes"])), text=began["about"])
        for note in plan.notes:
            way(note_event(note))
        result = healed(run, plan, way)
        Stage(way, "finish", 1).step()
        run.close()
    if not any(run.out.iterdir()):
        run.out.rmdir()
    return {"out": str(run.out), **result, "seconds": {"this call": time.monotonic() - started}}
