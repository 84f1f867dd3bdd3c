"""The step `tune`: a model folder and text in, an adapter folder or a whole model out.

The base's weights stay where they are, codes too, unless all of it is trained. The best by held-out text is kept, and
where nothing was gained by more than its standard error, what there was at the start.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whet.adapt import Parametrization, find_kind, installed, parse_targets, rounding_lost, shares_of
from whet.adapt.losses import NextToken
from whet.apply.run import Run
from whet.checkpoint import Checkpoint, check_files, load_model
from whet.distillation import Objective, Teaching
from whet.events import OnEvent, Part, Stage, Way, note_event, without_plan
from whet.messages import Message
from whet.paths import check_out
from whet.steps.driver import announce, kept_windows
from whet.steps.material import Material
from whet.steps.options import Tune
from whet.steps.request import Request, with_texts
from whet.steps.tune_files import write_tuned
from whet.steps.tune_text import Batches, judge_of
from whet.steps.tuning import Tuning, decide_tune
from whet.strict import checked
from whet.train import Schedule, Settings, train

_WARM = 0.1  # share of the steps in which the rate rises
_TIMED = 2  # steps that are timed where minutes are given, after one that is not
_READING = 2e-9  # seconds a byte of weights that are hashed and loaded


def tune(
    model: str | Path,
    out: str | Path,
    asked: Tune,
    *,
    seed: int,
    device: str,
    dry_run: bool,
    on_event: OnEvent,
    material: Material | None = None,
) -> dict[str, Any]:
    """Train an adapter of `model`, or all of it, into the folder `out`; returns what `whet.tune` does. material: what
    it is trained on, where that is no text."""
    check(asked)
    check_out(out, model)
    run = Run(out)
    on_event = run.telling(on_event)
    # what minutes are in steps was measured when the run began
    steps = run.request()["record"].get("steps") if run.begun and asked.minutes is not None and not dry_run else None
    plan = decide_tune(model, asked, seed=seed, device=device, material=material, steps=steps)
    run.check_free(plan.checkpoint.path)
    announce(run, plan.needs(), on_event)
    if dry_run:
        return {"dry_run": True, "out": str(out), **_choices(plan), **plan.needs(), "notes": list(plan.notes)}
    return _carry_out(run, plan, on_event)


def run(request: Request) -> dict[str, Any]:
    """The step of a recipe: the adapter is merged, as the next step reads a model."""
    options = with_texts(request.options.model_dump(), request.texts)
    return tune(
        request.source,
        request.out,
        Tune.of("tune", **options | {"merge": True}),
        seed=request.seed,
        device=request.device,
        dry_run=request.dry_run,
        on_event=request.on_event,
    )


def check(options: Tune) -> None:
    """Raises UsageError for options that cannot be, without a model."""
    options.check()
    find_kind(options.adapter)
    parse_targets(options.targets)


def resume_tune(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a stopped run, from what it began with."""
    record = request["record"]
    torch.set_num_threads(record["threads"])
    solve, verify = kept_windows(run)
    notes = tuple(map(Message.read, request["notes"]))
    asked = checked(Tune, dict(request["asked"]), str(run.out))
    plan = decide_tune(
        request["model"],
        asked,
        seed=record["seed"],
        device=record["device"],
        material=Material(solve, verify, record["text"]),
        steps=record["steps"],
    )
    plan = dataclasses.replace(plan, notes=notes, base=request["base"])
    return _carry_out(run, plan, run.telling(on_event))


def _carry_out(run: Run, plan: Tuning, on_event: OnEvent) -> dict[str, Any]:
    """Begin the run or go on with it, and see it through."""
    started = time.monotonic()
    reading, needs = _READING * plan.checkpoint.nbytes, plan.needs()
    way = Way(on_event, [Part("read", reading), Part("train", needs["seconds"]), Part("finish", 1 + reading)])
    check_files(plan.checkpoint.path, way)
    stage = Stage(way, "read", len(plan.checkpoint.stored))
    plan = dataclasses.replace(plan, digest=plan.checkpoint.examine(lambda _: stage.step()))
    work = _Work(plan)
    if plan.steps is None:
        plan = work.plan = dataclasses.replace(plan, steps=work.steps_in(60 * (plan.asked.minutes or 0)))
    with run.opened(plan.request(), plan.solve, plan.verify) as began:
        for note in plan.notes:
            way(note_event(note))
        result = work.trained(run, way)
        written = write_tuned(run.out, plan, work.model, work.found, result, began["files"], way)
        run.close()
    seconds = {"training": result["seconds"], "this call": time.monotonic() - started}
    return {"out": str(run.out), **_choices(plan), **written, "seconds": seconds}


def _choices(plan: Tuning) -> dict[str, Any]:
    kind = {} if plan.kind is None else {"rank": plan.rank, "alpha": plan.alpha, "modules": len(plan.modules)}
    return {
        "adapter": plan.asked.adapter,
        **kind,
        "taught": plan.asked.teacher is not None,
        "steps": plan.steps,
        "learning_rate": plan.rate,
        "merge": plan.whole,
    }


class _Work:
    """A model with what is trained of it."""

    def __init__(self, plan: Tuning) -> None:
        self.plan, asked = plan, plan.asked
        self.model: Any = load_model(plan.checkpoint.path, plan.dtype, plan.device)
        self.loss: NextToken | Teaching
        if asked.teacher is None:
            self.loss = NextToken(self.model)
        else:
            teacher = load_model(_other(asked.teacher), plan.dtype, plan.device).requires_grad_(False)
            self.loss = Teaching(teacher, self.model, Objective())
        self.found: dict[str, Parametrization] = {}
        self.roles: dict[str, str] | None = None
        self.shares: dict[str, float] = {}
        if plan.kind is None:
            self.model.requires_grad_(True)
            return
        groups = plan.groups() if plan.kind.grouped else None
        lost = None
        if asked.original is not None:
            first = load_model(_other(asked.original), plan.dtype, plan.device)
            lost = rounding_lost(self.model, first, plan.modules, plan.rank, [one[0] for one in plan.solve])
        self.found = installed(
            self.model, plan.modules, plan.kind, plan.rank, plan.alpha, plan.seed, groups=groups, lost=lost
        )
        self.roles, self.shares = shares_of(self.found, self.model)

    @property
    def batches(self) -> Batches:
        """Of its text."""
        return Batches(self.plan.solve, self.plan.asked.batch, self.plan.seed)

    def steps_in(self, seconds: float) -> int:
        """Steps that take about so long here."""
        self.model.train()
        for number in range(_TIMED + 1):
            if number == 1:
                started = time.monotonic()
            for batch in self.batches(number):
                total, count = self.loss(self.model, {k: v.to(self.plan.device) for k, v in batch.items()})
                (total / count).backward()  # type: ignore[no-untyped-call]
            self.model.zero_grad(set_to_none=True)
        self.model.eval()
        return max(1, int(seconds * _TIMED / (time.monotonic() - started)))

    def trained(self, run: Run, way: Way) -> dict[str, Any]:
        """Train, and leave the best in the model."""
        plan = self.plan
        assert plan.steps is not None
        warm = max(1, min(100, round(_WARM * plan.steps)))
        losses = self.loss.losses if isinstance(self.loss, NextToken) else self.loss.divergences
        return train(
            self.model,
            self.batches,
            Schedule(plan.rate, plan.steps, warmup=warm, kind="cosine"),
            loss=self.loss,
            settings=Settings(
                shares=self.shares, weight_decay=0.0, checkpointing=plan.asked.checkpointing, seed=plan.seed
            ),
            roles=self.roles,
            folder=run.folder / "training",
            judge=judge_of(plan.verify, losses),
            judge_every=plan.judged_every,
            on_event=without_plan(way),
        )


def _other(folder: Any) -> Path:
    """The folder of a teacher or an original. Raises UsageError where there is none."""
    return Checkpoint(folder).path
