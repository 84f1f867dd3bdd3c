"""`run`: the steps of a recipe, one after another, each checked by its gate and undone where it fails.

The result is plain JSON (`"format": "whet.run"`, `"version": 1`), which also goes into the finished folder as run.json:

    verdict     pass: every gate that was asked for holds; fail: one does not, and the run stopped there with the best
                folder so far; inconclusive: there was not enough evidence for one
    steps       a list, one entry a step: step, craft, outcome (kept, skipped, stopped, undecided, not reached),
                attempts (options, gate, bytes, seconds) and result
    report      the comparison with the original on text and questions that nothing else has opened; None without any
    model, out, kept (the steps whose work is in `out`), seconds, notes
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from whet import __version__
from whet.apply.run import Run
from whet.checkpoint import Checkpoint, write_json
from whet.errors import UsageError, verb
from whet.events import OnEvent, Part, Stage, Way, ignore, note_event
from whet.measure.aspects import check_files_of_aspects, chosen, files_of
from whet.measure.compare import compare
from whet.measure.gates import GateMaterial, check_gate, gate_seconds, measure_gate, parse_gate
from whet.measure.sides import item_tokens, seconds_a_token
from whet.messages import Message
from whet.paths import check_out
from whet.recipe.adopt import adopt
from whet.recipe.order import planned
from whet.recipe.schema import Recipe, read_recipe
from whet.recipe.texts import Divided
from whet.recipe.trial import Planned, try_step
from whet.steps.alone import leave_file
from whet.steps.course import reading
from whet.steps.crafts import CRAFTS
from whet.steps.estimate import check_room
from whet.steps.options import Compare, Options, Text
from whet.steps.request import Request, Texts
from whet.text import Amount

VERSION = 1


@verb
def run(
    recipe: str | Path | Mapping[str, Any],
    model: str | Path | None = None,
    out: str | Path | None = None,
    *,
    text: str | Path | Sequence[str] | None = None,
    skills: str | Path | Sequence[Mapping[str, Any]] | None = None,
    seed: int | None = None,
    device: str = "auto",
    keep_failed: bool = False,
    dry_run: bool = False,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """Do every step of a recipe, unattended; the result is described at the top of this file.

    recipe: a path, a preset's name, or what such a file holds. model, out, text, skills, seed: over what the recipe
    says. keep_failed: keep what was rolled back, in `out`/failed. dry_run: check everything, estimate, write nothing.

    A run that was killed goes on by the same call, or by `resume(out)`, to the same bytes. Raises UsageError for
    what cannot be done, before anything is done.
    """
    asked = read_recipe(recipe)
    named = {"model": model, "out": out, "text": text, "skills": skills, "seed": seed}
    asked = asked.model_copy(update={name: value for name, value in named.items() if value is not None})
    for name in ("model", "out"):
        if getattr(asked, name) is None:
            raise UsageError("The recipe names no {name}. Give it there, or with the command.", name=name)
    source = str(recipe) if isinstance(recipe, str | Path) else Message("the recipe")
    return _Runner(asked, source, device, on_event).go(keep_failed, dry_run)


def resume_run(run: Run, request: Mapping[str, Any], on_event: OnEvent) -> dict[str, Any]:
    """Go on with a recipe's run that was stopped."""
    torch.set_num_threads(request["threads"])
    asked = Recipe.model_validate(request["recipe"]).model_copy(
        update={"model": request["model"], "out": str(run.out), **request["given"]}
    )
    return _Runner(asked, str(run.out), request["device"], on_event).go(request["keep_failed"], dry_run=False)


class _Runner:
    """A recipe, checked as far as it can be without doing it."""

    def __init__(self, recipe: Recipe, source: str, device: str, on_event: OnEvent) -> None:
        self.recipe, self.source, self.device, self.on_event = recipe, source, device, on_event
        assert recipe.model is not None and recipe.out is not None
        check_out(recipe.out, recipe.model)
        self.run = Run(recipe.out)
        self.seconds: dict[str, float] = {}  # that steps are estimated to take, by name
        self.checkpoint = Checkpoint(recipe.model)
        self.original = self.checkpoint.path
        self.steps, self.report = planned(recipe, self.original, source)
        check_files_of_aspects(recipe.files)
        chosen((self.report or Compare()).measure)
        self.divided = Divided.of(
            self.original,
            recipe.text,
            recipe.skills,
            field=recipe.field,
            chat=recipe.chat,
            seed=recipe.seed,
            budgets=any(getattr(step.options, "budgeted", False) for step in self.steps),
            skip_bad=recipe.skip_bad,
            amount=_amount([step.options for step in self.steps]),
        )
        for step in self.steps:
            if step.gate:
                gate = self._gate(step.gate, f"{source}, steps[{step.number - 1}].gate")
                check_gate(self.original, gate, self._set_aside(), recipe.seed)

    def go(self, keep_failed: bool, dry_run: bool) -> dict[str, Any]:
        """Do it, or go on with it."""
        started = time.monotonic()
        self.run.check_free(self.original)
        needs = self._needs()
        self.on_event({"event": "plan", **needs})
        check_room(self.run.out, needs)
        if dry_run:
            return {"dry_run": True, "out": str(self.run.out), "steps": [step.name for step in self.steps], **needs}
        for note in self.divided.notes:
            self.on_event(note_event(note))
        way = Way(self.run.telling(self.on_event), self._stages())
        with self.run.opened(self._request(keep_failed, way)):
            ended, last = self._steps(self.run.out / "failed" if keep_failed else None, way)
            report = self._reported(last, way.part("report"))
            result = self._result(ended, report, last, time.monotonic() - started)
            adopt(self.run, self._document(), ended, None if last == self.original else last, result)
            Stage(way, "finish", 1).step()
            self.run.close()
        return leave_file(result)

    def _steps(self, keep_failed: Path | None, way: Way) -> tuple[list[dict[str, Any]], Path]:
        """Every step's end, and the folder of the last model that was kept."""
        source, ended = self.original, []
        for step in self.steps:
            end = try_step(
                step,
                self.run.folder,
                self.original,
                lambda made, options: self._step(source, made, options, way.part(step.name)),  # noqa: B023
                self._judged(way.part(_gate(step))),
                keep_failed,
                way,
            )
            ended.append(end)
            if end["outcome"] in ("stopped", "undecided"):
                break
            if end["outcome"] == "kept" and CRAFTS[step.craft].gives is not None:
                if source != self.original:
                    shutil.rmtree(source, ignore_errors=True)  # nothing reads it any more
                source = self.run.folder / step.name
        return ended, source

    def _step(self, source: Path, made: Path, options: Options, tell: OnEvent, dry_run: bool = False) -> Request:
        texts = Texts(self.divided.solve, self.divided.gate, self.divided.items["solve"])
        return Request(source, made, options, texts, self.recipe.seed, self.device, tell, dry_run, self.original)

    def _gate(self, gate: Mapping[str, float], source: str) -> Any:
        skills = list(dict.fromkeys(item.skill for item in self.divided.items["gate"]))
        return parse_gate(gate, skills=skills, text=self.divided.gate is not None, source=source)

    def _set_aside(self) -> GateMaterial:
        return GateMaterial(
            self.divided.gate, self.divided.items["gate"], chat=self.recipe.chat, files=self.recipe.files
        )

    def _judged(self, tell: OnEvent) -> Any:
        material = self._set_aside()

        def judge(folder: Path, gate: Mapping[str, float]) -> dict[str, Any]:
            return measure_gate(
                self.original,
                folder,
                self._gate(gate, self.source),
                material,
                device=self.device,
                seed=self.recipe.seed,
                folder=self.run.folder / "gates",
                on_event=tell,
            )

        return judge

    def _needs(self) -> dict[str, Any]:
        """What it will take. Every step is checked, as far as it can be on the original."""
        needs: dict[str, Any] = {"memory": 0, "disk": 2**20, "seconds": 0.0}
        models = 0
        for step in self.steps:
            for options in (step.options, *step.tries):
                place = self.run.folder / f"{step.name}.0"
                found = CRAFTS[step.craft].run(self._step(self.original, place, options, ignore, dry_run=True))
                needs["memory"] = max(needs["memory"], found["memory"])
            self.seconds[step.name] = found["seconds"]
            needs["seconds"] += found["seconds"]
            needs["disk"] += found["disk"]
            models += CRAFTS[step.craft].gives is not None
        return needs

    def _stages(self) -> list[Part]:
        """Every step and gate as if it were tried once, and the report."""
        stages = [reading(self.checkpoint)]
        for step in self.steps:
            stages.append(Part(step.name, self.seconds[step.name]))
            if step.gate:
                seconds = gate_seconds(self.original, self._gate(step.gate, self.source), self._set_aside())
                stages.append(Part(_gate(step), seconds))
        if self.divided.report is not None:
            asked = self.report or Compare()
            text = sum(len(document.encode()) // 4 for document in self.divided.report)
            tokens = text if asked.windows is None else min(text, asked.windows * asked.window)
            tokens += item_tokens(self.divided.items["report"])
            stages.append(Part("report", 2 * tokens * seconds_a_token(self.original) + (20 if asked.speed else 0)))
        return [*stages, Part("finish", 0.5)]

    def _request(self, keep_failed: bool, on_event: OnEvent) -> dict[str, Any]:
        stage = Stage(on_event, "read", len(self.checkpoint.stored))
        given = {
            name: value if isinstance(value, str | list) else str(value)
            for name in ("text", "skills")
            if (value := getattr(self.recipe, name)) is not None
        }
        record = {
            "model_sha256": self.checkpoint.examine(lambda _: stage.step()),
            "seed": self.recipe.seed,
            "text and questions": self.divided.mark,
            **({"files": self.recipe.files} if self.recipe.files else {}),
            **{step.name: [step.options.document(), dict(step.gate), step.on_fail] for step in self.steps},
            "tries": [option.document() for step in self.steps for option in step.tries],
        }
        digest = hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        return {
            "whet": __version__,
            "step": "recipe",
            "model": str(self.original.resolve()),
            "device": self.device,
            "threads": torch.get_num_threads(),
            "recipe": self._document(),
            "given": given,
            "keep_failed": keep_failed,
            "record": record,
            "fingerprint": digest,
        }

    def _document(self) -> dict[str, Any]:
        """The recipe as it is replayed, every default filled in; text and questions that were no files are left out,
        and so is a model whose path is absolute."""
        top = {
            name: getattr(self.recipe, name)
            for name in ("model", "seed", "text", "skills", "field", "chat", "skip_bad")
        }
        named: dict[str, Any] = {name: value for name, value in top.items() if isinstance(value, str | int)}
        if self.recipe.files:
            named["files"] = self.recipe.files
        if Path(str(named.get("model", "/"))).is_absolute():
            named.pop("model", None)
        report = [] if self.report is None else [{"compare": self.report.document()}]
        return {"version": 1, **named, "steps": [*(step.document() for step in self.steps), *report]}

    def _reported(self, last: Path, tell: OnEvent) -> dict[str, Any] | None:
        """The comparison of what was kept with the original, on what nothing else has opened."""
        if self.divided.report is None or last == self.original:
            return None
        file = self.run.folder / "report.json"
        if not file.is_file():
            options = self.report or Compare()
            found = compare(
                self.original,
                last,
                text=self.divided.report,
                skills=[item.record() for item in self.divided.items["report"]] or None,
                windows=options.windows,
                window=options.window,
                limits=options.limits,
                speed=options.speed,
                measure=options.measure,
                files=files_of(chosen(options.measure), self.recipe.files),
                seed=self.recipe.seed,
                device=self.device,
                use_report_split=False,
                on_event=tell,
            )
            write_json(file, {**found, "lighter": str(self.run.out)})
        found_report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found_report

    def _result(
        self, ended: Sequence[dict[str, Any]], report: dict[str, Any] | None, last: Path, seconds: float
    ) -> dict[str, Any]:
        reached = {end["step"] for end in ended}
        missed = [
            {"step": step.number, "craft": step.craft, "outcome": "not reached", "attempts": [], "result": {}}
            for step in self.steps
            if step.number not in reached
        ]
        outcomes = [end["outcome"] for end in ended]
        verdict = "fail" if "stopped" in outcomes else "inconclusive" if "undecided" in outcomes else "pass"
        if verdict == "pass" and self.report is not None and report is not None:
            verdict = report["verdict"]
        return {
            "format": "whet.run",
            "version": VERSION,
            "verdict": verdict,
            "model": str(self.original),
            "out": str(self.run.out),
            "kept": [f"{end['step']} {end['craft']}" for end in ended if end["outcome"] == "kept"],
            "steps": [*ended, *missed],
            "report": report,
            "notes": [*self.divided.notes, *_notes(ended, last == self.original)],
            "seconds": seconds,
        }


def _amount(options: Sequence[Options]) -> Amount:
    """How much of a text the steps need."""
    found = Amount()
    for one in options:
        if isinstance(one, Text):
            found |= Amount.enough(one.most_samples, one.window)
    return found


def _gate(step: Planned) -> str:
    """What the gate of a step is called on the way."""
    return f"{step.name}, gate"


_ENDED = {"stopped": Message("stopped"), "undecided": Message("undecided"), "skipped": Message("skipped")}


def _notes(ended: Sequence[Mapping[str, Any]], nothing: bool) -> list[Message]:
    """What a person has to know of how the run ended."""
    notes = []
    for end in ended:
        if end["outcome"] in _ENDED:
            notes.append(
                Message(
                    "step {number}, {craft}: {outcome}, tries: {count}. {reason}",
                    number=end["step"],
                    craft=end["craft"],
                    outcome=_ENDED[end["outcome"]],
                    count=len(end["attempts"]),
                    reason=Message.read(end["attempts"][-1]["gate"]["reason"]),
                )
            )
    if nothing:
        notes.append(Message("nothing was kept: the original is the best model so far, and no folder was written"))
    return notes
