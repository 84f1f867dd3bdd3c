"""The teacher's targets: drawn once into a folder, or found there and checked against teacher, tokenizer and text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.apply.job import Job
from whet.checkpoint import Checkpoint, disk_errors, empty_model, load_tokenizer, write_json, write_tensors
from whet.distillation import DRAWS, MOST_TOKENS, Drawn, Halves, Panel, log_chances
from whet.errors import UsageError
from whet.events import OnEvent, Stage
from whet.steps.lesson import taught, teacher_of
from whet.steps.options import Distill
from whet.steps.target_store import ABOUT, HELD_OUT, VERSION, WINDOWS, TargetStore, digest_of, tokenizer_digest
from whet.train import PackedRows

HELD_OUT_DRAWS = 48
_PART = 1 << 16  # tokens of a part, about
_LOGITS = 1 << 26  # bytes of a table of logits, at most


def check_targets(asked: Distill) -> TargetStore | None:
    """The store that is named. Raises UsageError for what it does not go with."""
    if asked.targets is None:
        if asked.draws is not None:
            raise UsageError("draws says how many tokens are stored a position: give targets with it, or leave it out.")
        return None
    if asked.loss != "forward":
        raise UsageError(
            "loss {name} needs the whole prediction of the teacher, and targets store a few tokens of it, which give "
            "the loss forward without bias. Leave one of them out.",
            name=asked.loss,
        )
    for name in ("hidden", "relations"):
        if getattr(asked, name):
            raise UsageError(
                "{name} needs the teacher in memory, and with targets it is not there. Leave one of them out.",
                name=name,
            )
    store = TargetStore(asked.targets)
    for name, now in (("draws", asked.draws), ("temperature", asked.temperature)):
        if store.about and now is not None and store.about[name] != now:
            raise UsageError(
                "{folder} was drawn with {name} {before:g}, and {now:g} was asked for. Leave {name} out, or name "
                "another folder.",
                folder=store.folder,
                name=name,
                before=store.about[name],
                now=now,
            )
    return store


def check_tokens(store: TargetStore, student: Path, rows: int) -> None:
    """Raises UsageError unless what was drawn are tokens of the student, whose head has so many rows."""
    if tokenizer_digest(student) != store.about["tokenizer"] or rows < store.about["vocabulary"]:
        raise UsageError(
            "{folder} was drawn with another tokenizer than {student} has. Name another folder, and the targets are "
            "made anew.",
            folder=store.folder,
            student=student,
        )


def drawn_already(job: Job, given: str) -> bool:
    """Whether all targets are there, of the text that was given, by its hash."""
    one = taught(job)
    store = None if one.targets is None else TargetStore(one.targets)
    return store is not None and store.complete and store.about["given"] == given


def with_targets(job: Job, on_event: OnEvent, given: str = "") -> Job:
    """`job` with the teacher's targets: its text is the rows that were drawn at. Where the folder is not complete, the
    teacher is opened and draws what is missing.

    given: the hash of the text that was given, where the teacher wrote after it. Raises UsageError where the folder is
    of another teacher or another text.
    """
    one = taught(job)
    if one.targets is None:
        return job
    store = TargetStore(one.targets)
    if store.about:
        _check(store, job)
    if not store.complete:
        _begin(store, job, given)
        _draw(store, job, on_event)
        store = TargetStore(one.targets)
    rows, held_out = store.windows()
    about = store.about
    one = dataclasses.replace(
        one,
        others_sha256=tuple(about["others"]),
        name=about["teacher"],
        sha256=about["teacher_sha256"],
        draws=about["draws"],
        targets_sha256=store.digest(),
    )
    return dataclasses.replace(job, solve=rows, verify=held_out, text=about["about"], distillation=one)


def _check(store: TargetStore, job: Job) -> None:
    one, about = taught(job), store.about
    whose = [about["teacher_sha256"], *about["others"]]
    if one.teacher is not None and [one.sha256, *one.others_sha256] != whose:
        raise UsageError(
            "{folder} was drawn from the teacher {before}, and {teacher} is another (or has changed since). Name "
            "another folder, and its targets are made anew.",
            folder=store.folder,
            before=about["teacher"],
            teacher=one.teacher,
        )
    if job.solve and digest_of(job.solve, job.verify) not in (about["text"], about["rows"]):
        raise UsageError(
            "{folder} was drawn on another text, or on other windows of it (window, samples and seed count too). Leave "
            "text out to train on what was drawn, or name another folder.",
            folder=store.folder,
        )


def _begin(store: TargetStore, job: Job, given: str) -> None:
    """Write what is drawn at and of whom, unless that was done."""
    if store.about:
        return
    one = taught(job)
    assert one.teacher is not None
    end = load_tokenizer(one.teacher).eos_token_id
    rows = PackedRows(job.solve, one.batch, job.seed, end).packed()
    theirs = empty_model(Checkpoint(one.teacher), torch.float32).get_output_embeddings().weight
    vocabulary = min(len(theirs), job.anatomy.embedding.shape[0])
    if vocabulary > MOST_TOKENS:
        raise UsageError(
            "{teacher} has {count} tokens, and targets number them up to {most}. Leave targets out.",
            teacher=one.name,
            count=vocabulary,
            most=MOST_TOKENS,
        )
    store.about = {
        "version": VERSION,
        "teacher": one.name,
        "teacher_sha256": one.sha256,
        "others": list(one.others_sha256),
        "tokenizer": tokenizer_digest(one.teacher),
        "vocabulary": vocabulary,
        "text": digest_of(job.solve, job.verify),
        "given": given,
        "rows": digest_of(rows, job.verify),
        "draws": one.draws or DRAWS,
        "temperature": one.objective.temperature,
        "seed": job.seed,
        "lengths": [len(row) for row in rows],
        "held_out": [len(window) for window in job.verify],
        "about": None if job.text is None else dict(job.text),
    }
    windows = {f"row {number:07d}": row.int() for number, row in enumerate(rows)}
    windows |= {f"held-out {number:07d}": window.int() for number, window in enumerate(job.verify)}
    with disk_errors(store.folder):
        store.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(store.folder / WINDOWS, windows)
        write_json(store.folder / ABOUT, store.about)


@torch.no_grad()
def _draw(store: TargetStore, job: Job, on_event: OnEvent) -> None:
    """Draw the parts that are missing, and say that it is complete."""
    one, about = taught(job), store.about
    assert one.teacher is not None
    teacher = teacher_of(job, plain=False)
    rows, held_out = store.windows()
    parts = _parts(about["lengths"])
    stage = Stage(on_event, "draw", len(rows) + len(held_out))
    for number, part in enumerate(parts):
        if not store.part(number).exists():
            found = [_drawn(teacher, rows[i], job, about, i)[0] for i in part]
            with disk_errors(store.folder):
                write_tensors(store.part(number), vars(Drawn.joined(found)))
        stage.reach(part.stop)
    if held_out:
        told = [_drawn(teacher, window, job, about, -1 - i) for i, window in enumerate(held_out)]
        beside = {name: torch.cat([more[name] for _, more in told]) for name in ("log_p", "top")}
        with disk_errors(store.folder):
            write_tensors(store.folder / HELD_OUT, vars(Drawn.joined([drawn for drawn, _ in told])) | beside)
    stage.reach(len(rows) + len(held_out))
    with disk_errors(store.folder):
        write_json(store.folder / ABOUT, about | {"parts": len(parts)})


def _parts(lengths: list[int]) -> list[range]:
    """Rows of each part, by their lengths."""
    found, start, held = [], 0, 0
    for number, length in enumerate(lengths, 1):
        held += length
        if held >= _PART or number == len(lengths):
            found.append(range(start, number))
            start, held = number, 0
    return found


def _drawn(
    teacher: Halves | Panel, row: Tensor, job: Job, about: dict[str, Any], number: int
) -> tuple[Drawn, dict[str, Tensor]]:
    """What is drawn in a row, or where its number is negative in a held-out window, with more of it then."""
    held_out = number < 0
    chance = torch.Generator().manual_seed(about["seed"] * 1_000_003 + 2 * abs(number) + held_out)
    states = teacher.states(row[None].to(job.device)).last_hidden_state[0]
    found, more = [], []
    for some in states.split(max(1, _LOGITS // (4 * about["vocabulary"]))):
        p = log_chances(teacher.logits(some), about["vocabulary"], 1.0 if held_out else about["temperature"]).cpu()
        found.append(Drawn.of(p, HELD_OUT_DRAWS if held_out else about["draws"], chance))
        if held_out:
            positions, tokens, _ = found[-1].read()
            more.append({"log_p": p[positions, tokens], "top": p.argmax(-1)})
    return Drawn.joined(found), {name: torch.cat([one[name] for one in more]) for name in more[0]} if more else {}
