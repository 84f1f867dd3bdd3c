"""What a run of the step `heal` does between its start and its end: asking, practising, judging."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.apply.run import Run
from whet.checkpoint import MANIFEST, Checkpoint, read_header, read_tensor, write_json, write_tensors
from whet.engines.opening import open_engine
from whet.errors import UsageError
from whet.events import Way, without_plan
from whet.measure.healed import healed_skills, hurt_skills, verdict
from whet.measure.items import Item, by_skill
from whet.measure.practice import Problem, solved, variants, with_failures
from whet.measure.skills import Outcome, compare_skills, score
from whet.messages import Message, listed
from whet.steps.coded import coded_modules
from whet.steps.distill import decide_distill, distill
from whet.steps.distilled import needs_of
from whet.steps.heal_end import adopt, left_as_it_was
from whet.steps.heal_options import MINUTES
from whet.steps.material import Material
from whet.steps.merge import merge
from whet.steps.options import Distill, Heal, Merge, Tune
from whet.steps.tune import tune
from whet.steps.tuning import decide_tune

# What predicting a token of an answer counts beside one of a question or of ordinary text, and how much more where the
# lighter model answers otherwise than the original.
ANSWER, FAILED = 10, 3
# Tokens of other skills' questions, and of ordinary text, beside those of the problems.
_OTHERS, _TEXT = 0.6, 0.4
_HELD_OUT, _MOST_HELD_OUT = 0.05, 200  # of every kind, for choosing the best iterate
_ADAPTER = "adapter"


@dataclass(frozen=True)
class Healing:
    """A run. learnt, gate: questions to practise on and to gate with. named: the skills that were asked for, none for
    those that are hurt. how: what is trained. windows: of ordinary text, `text` what the lineage tells of it. left: as
    for `heal`. digest, original_digest: SHA-256 of the folder and of the original."""

    asked: Heal
    checkpoint: Checkpoint
    original: Checkpoint
    learnt: tuple[Item, ...]
    gate: tuple[Item, ...]
    named: tuple[str, ...]
    how: str
    windows: tuple[Tensor, ...]
    text: Mapping[str, Any] | None
    seed: int
    device: str
    left: bool
    notes: tuple[Message, ...]
    digest: str | None = None
    original_digest: str | None = None

    @property
    def lasting(self) -> dict[str, Any]:
        """How long it is trained, as options."""
        if self.asked.steps is not None:
            return {"steps": self.asked.steps}
        return {"minutes": self.asked.minutes or MINUTES}

    def distilling(self, windows: Sequence[Tensor], held: Sequence[Tensor]) -> Distill:
        """The options of `distill`."""
        learn = None if self.checkpoint.dense else {"scales": "scales", "weights": "all"}[self.how]
        return Distill.of(
            "heal",
            text=list(windows),
            eval_text=list(held),
            teacher=str(self.original.path),
            learn=learn,
            batch=self.asked.batch,
            rate=self.asked.rate,
            checkpointing=self.asked.checkpointing,
            **self.lasting,
        )

    def tuning(self) -> Tune:
        """The options of `tune`: where all zeros of the codes are real numbers, an adapter that merges into them."""
        coded = coded_modules(self.checkpoint)
        real = bool(coded) and all(part.real for parts in coded.values() for part in parts)
        return Tune.of(
            "heal",
            adapter="qalora" if real else "lora",
            rank=self.asked.rank,
            teacher=str(self.original.path),
            batch=self.asked.batch,
            learning_rate=self.asked.rate,
            checkpointing=self.asked.checkpointing,
            **self.lasting,
        )


def practice_needs(plan: Healing) -> dict[str, Any]:
    """Seconds of training, and bytes of memory and disk. Raises UsageError for what cannot be trained."""
    some = torch.zeros(2, plan.asked.window, dtype=torch.int64)
    if plan.how == "adapter":
        material = Material([some], [some], {"source": "problems"})
        return decide_tune(
            plan.checkpoint.path, plan.tuning(), seed=plan.seed, device=plan.device, material=material
        ).needs()
    asked = plan.distilling([some], [some])
    same = plan.checkpoint.path.resolve() == plan.original.path.resolve()
    job = decide_distill(plan.checkpoint.path, asked, seed=plan.seed, device=plan.device, alike=same)
    return needs_of(job, plan.lasting.get("minutes"))


def healed(run: Run, plan: Healing, way: Way) -> dict[str, Any]:
    """See a run through that is begun or gone on with; leaves the folder in `run.out` where it is kept."""
    answers = _read_or(run.folder / "answers.json", lambda: _asked_both(plan, way))
    outcomes = {name: [Outcome(*one) for one in answers[name]] for name in ("original", "before")}
    table = compare_skills(plan.gate, outcomes["original"], outcomes["before"])
    chosen, notes = _chosen(plan, table)
    notes = [*plan.notes, *notes]
    if not chosen:
        told: dict[str, Any] = {
            "outcome": "unhurt",
            "reason": Message("no skill is hurt: there is nothing to give back"),
        }
        left_as_it_was(run, plan.checkpoint, told, plan.left)
        return {**told, "skills": [], "notes": notes}
    about, windows, held = _practised(run, plan, chosen, way)
    made = _trained(run, plan, windows, held, about, way)
    after = _read_or(run.folder / "after.json", lambda: {"after": _asked(plan, made, "skills, healed", way)})
    outcomes["after"] = [Outcome(*one) for one in after["after"]]
    entries = healed_skills(plan.gate, outcomes, chosen)
    outcome, reason = verdict(entries, plan.asked.to)
    told = {
        "outcome": outcome,
        "reason": reason,
        "how": plan.how,
        "to": plan.asked.to,
        "skills": entries,
        "problems": about,
        "notes": notes,
    }
    if outcome == "rolled back":
        left_as_it_was(run, plan.checkpoint, told, plan.left)
        return told
    return {**told, **adopt(run, made, plan.checkpoint, plan.asked, told, plan.original_digest)}


def _asked_both(plan: Healing, way: Way) -> dict[str, Any]:
    """What the original and the folder answer to the questions that gate."""
    return {
        "original": _asked(plan, plan.original.path, "skills, original", way),
        "before": _asked(plan, plan.checkpoint.path, "skills, lighter", way),
    }


def _asked(plan: Healing, folder: Path, stage: str, way: Way) -> list[list[Any]]:
    engine = open_engine(folder, plan.device)
    outcomes = score(engine, plan.gate, chat=plan.asked.chat, on_event=way, stage=stage)
    return [list(asdict(outcome).values()) for outcome in outcomes]


def _chosen(plan: Healing, table: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[Message]]:
    """The skills to give back: those named, or those that the folder's own comparison found hurt, or where there is
    none those that the questions that gate show to be. Of a comparison nothing is read but the skills' figures."""
    had = {entry["skill"] for entry in table if entry["retention"]["value"] is not None}
    if plan.named:
        lacking = [name for name in plan.named if name not in had]
        if lacking:
            raise UsageError(
                "The original does not have the skill {name}: its accuracy is not above chance, so there is nothing to "
                "give back. Leave it out, or give more questions.",
                name=lacking[0],
            )
        return list(plan.named), []
    file = plan.checkpoint.path / "compare.json"
    entries = table
    if file.is_file():
        try:
            entries = json.loads(file.read_text(encoding="utf-8"))["skills"]
        except (ValueError, KeyError, TypeError):
            entries = table
    practised, hurt = by_skill(plan.learnt), [name for name in hurt_skills(entries) if name in had]
    notes = [
        Message("{skill} is hurt, but there is no question of it to practise on", skill=name)
        for name in hurt
        if name not in practised
    ]
    chosen = [name for name in hurt if name in practised]
    return chosen, [*notes, *([Message("skills to give back: {skills}", skills=listed(chosen))] if chosen else [])]


def _practised(
    run: Run, plan: Healing, chosen: Sequence[str], way: Way
) -> tuple[dict[str, Any], list[Tensor], list[Tensor]]:
    """What is practised: how many problems of each skill, and the windows to train on and to choose the best by."""
    file, about = run.folder / "practice.safetensors", run.folder / "practice.json"
    if not about.is_file():
        problems, told = _problems(plan, chosen, way)
        windows, held = _windows(plan, problems, chosen)
        write_tensors(
            file,
            {
                f"{kind} {i:06d}": one
                for kind, some in (("solve", windows), ("held", held))
                for i, one in enumerate(some)
            },
        )
        write_json(about, told)
    stored = read_header(file)
    windows, held = (
        [read_tensor(stored[name]) for name in sorted(stored) if name.startswith(kind)] for kind in ("solve", "held")
    )
    return json.loads(about.read_text(encoding="utf-8")), windows, held


def _problems(plan: Healing, chosen: Sequence[str], way: Way) -> tuple[list[Problem], dict[str, Any]]:
    """Problems of the chosen skills and of all others, each with whether the folder fails it."""
    most, draws = plan.asked.problems, random.Random(plan.seed)
    places = by_skill(plan.learnt)
    wanted: list[Item] = []
    made: dict[str, int] = {}
    for skill in chosen:
        own = [plan.learnt[i] for i in places[skill]]
        own = draws.sample(own, min(most, len(own)))
        more = variants(own, most - len(own), plan.seed, [item for item in plan.gate if item.skill == skill])
        made[skill] = len(more)
        wanted += [*own, *more]
    others = [item for item in plan.learnt if item.skill not in chosen]
    wanted += draws.sample(others, min(len(others), len(wanted)))
    original = open_engine(plan.original.path, plan.device)
    found = solved(original, wanted, chat=plan.asked.chat, on_event=way, stage="solve")
    del original
    found = with_failures(open_engine(plan.checkpoint.path, plan.device), found, chat=plan.asked.chat, on_event=way)
    told = {}
    for skill in chosen:
        mine = [one for one in found if one.item.skill == skill]
        told[skill] = {"problems": len(mine), "variants asked": made[skill], "failed": sum(one.failed for one in mine)}
        if not mine:
            raise UsageError(
                "The original solves none of the problems of {name}, so there is nothing to practise on. Give more "
                "questions of it (--practice FILE).",
                name=skill,
            )
    return found, told


def _windows(plan: Healing, problems: Sequence[Problem], chosen: Sequence[str]) -> tuple[list[Tensor], list[Tensor]]:
    """Windows `[2, L]` to train on, and to choose the best by: problems, questions of other skills, ordinary text."""
    draws = random.Random(plan.seed)
    kinds: list[list[Tensor]] = [
        [_window(one) for one in problems if (one.item.skill in chosen) == own] for own in (True, False)
    ]
    kinds.append([torch.stack([window, torch.ones_like(window)]) for window in plan.windows])
    room = sum(window.shape[1] for window in kinds[0])
    solve, held = list[Tensor](), list[Tensor]()
    for windows, share in zip(kinds, (1.0, _OTHERS, _TEXT), strict=True):
        draws.shuffle(windows)
        taken, tokens = list[Tensor](), 0
        for window in windows:
            if tokens >= share * room:
                break
            taken.append(window)
            tokens += window.shape[1]
        out = min(_MOST_HELD_OUT, round(_HELD_OUT * len(taken)))
        held += taken[:out]
        solve += taken[out:]
    if not held:
        held.append(solve[0].clone())
    return solve, held


def _window(one: Problem) -> Tensor:
    """Tokens, and what predicting each counts."""
    counts = [1] * one.start + [ANSWER * (FAILED if one.failed else 1)] * (len(one.tokens) - one.start)
    return torch.tensor([one.tokens, counts])


def _trained(
    run: Run, plan: Healing, windows: Sequence[Tensor], held: Sequence[Tensor], about: Mapping[str, Any], way: Way
) -> Path:
    """The folder that was trained, made now or by an earlier call."""
    made, tell = run.folder / "made", without_plan(way.part("train"))
    how: dict[str, Any] = {"seed": plan.seed, "device": plan.device, "dry_run": False}
    if _is_made(made):
        return made
    if plan.how != "adapter":
        distill(plan.checkpoint.path, made, plan.distilling(windows, held), on_event=tell, **how)
        return made
    adapter = run.folder / _ADAPTER
    if not _is_made(adapter):
        material = Material(windows, held, {"source": "problems that the original solved"})
        tune(plan.checkpoint.path, adapter, plan.tuning(), on_event=tell, material=material, **how)
    merge(plan.checkpoint.path, adapter, made, Merge(), on_event=tell, **how)
    return made


def _is_made(folder: Path) -> bool:
    """Whether an earlier call finished a folder; it may have been taken apart already by its adoption."""
    return (folder / MANIFEST).is_file() and not Run(folder).begun


def _read_or(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an earlier call found, or what is found now."""
    if not file.is_file():
        write_json(file, make())
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
