"""A student and its teacher in memory: what a step of training compares, and how near they are on held-out text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from whet.apply.job import Job
from whet.apply.run import Run
from whet.checkpoint import load_model, load_tokenizer
from whet.distillation import Distillation, Halves, Panel, StoredTeaching, Teaching
from whet.events import OnEvent, without_plan
from whet.steps.coded_student import CodedStudent
from whet.steps.own_text import OWN, OwnText, own_steps, without_some
from whet.steps.target_store import Drawers, TargetStore
from whet.train import (
    PIECE,
    Batch,
    PackedRows,
    Schedule,
    Settings,
    Tracker,
    Watch,
    noise,
    tokens_of,
    train,
    weights_of,
)

LOOKS = 10  # times that held-out text is looked at
_PLAIN = 512  # tokens of a window, up to which a table of attention is small
_JUDGED = 4096  # tokens of it together
# AdamW's rate goes with one over the width (Yang et al. 2022, arXiv 2203.03466), from one that was tried on the
# embedded model: see docs/distillation.md.
_RATE, _WIDTH = 1e-3, 256
_WARM_UP, _MOST_WARM_UP = 0.05, 100  # of the steps


def dense_rate(job: Job) -> float:
    """The learning rate of weights that are stored as they are, unless one is named."""
    return _RATE * _WIDTH / job.anatomy.embedding.shape[1]


def taught(job: Job) -> Distillation:
    """What a job's model is taught."""
    assert job.distillation is not None
    return job.distillation


class Lesson:
    """A student and its teacher in memory."""

    def __init__(self, job: Job) -> None:
        self.job, self.of = job, taught(job)
        self.student = load_model(job.checkpoint.path, torch.float32, job.device)
        if self.short:
            self.student.set_attn_implementation("eager")
        self.autocast = job.compute != torch.float32
        self.store = None if self.of.targets is None else TargetStore(self.of.targets)
        with self._computing():
            self.teaching = self._teaching()
        end = load_tokenizer(job.checkpoint.path).eos_token_id
        self.rows = PackedRows(job.solve, self.of.batch, job.seed, end, alone=self.store is not None)
        self.held_out = [self._with_targets(batch, "held_out") for batch in _padded(job.verify)]
        self.taught: list[Tensor | None] = []
        self.own: OwnText | None = None
        # the model is known part by part from here on, so its parameters may become others
        self.coded: CodedStudent | None = None
        if not job.checkpoint.dense:
            self.coded = CodedStudent(job.checkpoint, self.student, self.of, dense_rate(job))

    def _teaching(self) -> Teaching | StoredTeaching:
        if self.store is not None:
            return StoredTeaching(self.student, self.store.about["vocabulary"], self.of.objective.temperature)
        return Teaching(self._teacher(), self.student, self.of.objective, _kept(self.job))

    def _teacher(self) -> Halves | Panel:
        return teacher_of(self.job, plain=self.short)

    @property
    def short(self) -> bool:
        """Whether attention is computed plainly: on processors SDPA's backward is slow, a seventh of a step here."""
        return self.job.device == "cpu" and max(map(len, map(tokens_of, self.job.solve))) <= _PLAIN

    def train(
        self,
        steps: int,
        run: Run | None,
        tell: OnEvent | None,
        own: int | None = None,
        tracker: Tracker | None = None,
    ) -> dict[str, Any]:
        """Train for so many steps, in the folder of `run` if there is one; returns what `whet.train.train` does. own:
        how many of them are on its own text too, where that is not as was asked for. tracker: told how it goes."""
        of, watch = self.of, Watch()
        own = own_steps(steps, of.own_text) if own is None else own
        self.own = self._own_text(steps - own, watch) if own else None
        warmup = min(_MOST_WARM_UP, math.ceil(_WARM_UP * steps))
        return train(
            self.teaching.trained(),
            self._batches,
            Schedule(of.rate, steps, warmup, of.schedule, decay=0.5),
            loss=self._loss,
            settings=Settings(
                shares={} if self.coded is None else self.coded.shares,
                autocast=self.autocast,
                checkpointing=of.checkpointing,
                seed=self.job.seed,
            ),
            roles=None if self.coded is None else self.coded.roles(),
            folder=None if run is None else run.folder / "training",
            judge=(lambda _: self.losses()) if run is not None and self.held_out else None,
            judge_every=max(1, steps // LOOKS),
            good_every=max(1, steps // LOOKS),
            watch=watch,
            tracker=tracker,
            on_event=(lambda event: None) if tell is None else without_plan(tell),
        )

    def _own_text(self, first: int, watch: Watch) -> OwnText:
        if isinstance(self.teaching, StoredTeaching):
            with self._computing():
                teacher = self._teacher()
        else:
            teacher = self.teaching.teacher
        student, tokens = self.teaching.student, round(OWN * self.of.batch)
        of = self.of
        return OwnText(self.job, student, teacher, first, tokens, of.writer == "switch", of.own_loss == "dpkd", watch)

    @torch.no_grad()
    def losses(self) -> Tensor:
        """KL to the teacher on the held-out text, nats a token, of each piece of PIECE tokens `[n]`; tokens count as
        its windows say."""
        found, counts = list[Tensor](), list[Tensor]()
        with self._computing():
            self.taught = self.taught or [self.teaching.taught(batch) for batch in self._held_out()]
            for batch, states in zip(self._held_out(), self.taught, strict=True):
                each, weights = self.teaching.divergences(batch, states).cpu(), batch["weights"].cpu()
                found.append((each * weights)[weights > 0])
                counts.append(weights[weights > 0])
        every = torch.cat(found) / torch.cat(counts).mean()
        whole = len(every) // PIECE * PIECE
        return every[:whole].view(-1, PIECE).double().mean(-1) if whole else every.double().mean()[None]

    def agreement(self, other: Any = None) -> dict[str, float]:
        """`kl` and its `kl_error`, nats a token, and `top1` on the held-out text; of the model `other` in place of the
        student."""
        lesson = self if other is None else self._of_another(other)
        pieces = lesson.losses()
        return {"kl": pieces.mean().item(), "kl_error": noise(pieces), "top1": lesson._top1()}

    def _of_another(self, model: Any) -> Lesson:
        other = Lesson.__new__(Lesson)
        other.__dict__ |= self.__dict__
        with self._computing():
            other.teaching = self.teaching.beside(model)
        other.student = model
        return other

    @torch.no_grad()
    def _top1(self) -> float:
        with self._computing():
            right = torch.cat([self.teaching.agreeing(batch) for batch in self._held_out()])
        return right.double().mean().item()

    def _computing(self) -> Any:
        kind = torch.device(self.job.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.autocast)

    def _held_out(self) -> Iterator[Batch]:
        for batch in self.held_out:
            yield {name: tensor.to(self.job.device) for name, tensor in batch.items()}

    def _batches(self, step: int) -> Sequence[Batch]:
        batch, own = self.rows(step), list[Batch]()
        if self.own is not None and step >= self.own.first:
            batch = without_some(batch)
            with self._computing():
                own = self.own.batches(step, self.of.at_once)
        rows = max(1, self.of.at_once // batch["input_ids"].shape[1])
        given = [
            self._with_targets({name: tensor[start : start + rows] for name, tensor in batch.items()}, "rows")
            for start in range(0, len(batch["input_ids"]), rows)
        ]
        return [*given, *own]

    def _with_targets(self, batch: Batch, kind: str) -> Batch:
        """A batch with what was drawn in its rows, if targets are stored."""
        if self.store is None:
            return batch
        drawn: Drawers = getattr(self.store, kind)
        return batch | drawn.of(batch["number"].tolist())

    def _loss(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        if "taught" in batch or "preferred" in batch:
            assert self.own is not None
            return self.own.loss(batch)
        return self.teaching(model, batch)


def teacher_of(job: Job, *, plain: bool) -> Halves | Panel:
    """The teacher of a job, or several as one. plain: compute attention plainly."""
    of, found = taught(job), []
    assert of.teacher is not None
    for folder in (of.teacher, *of.others):
        model = load_model(folder, job.compute, job.device)
        model.requires_grad_(False)
        if plain:
            model.set_attn_implementation("eager")
        found.append(model)
    return Panel(found, of.objective.temperature) if of.others else Halves.of(found[0])


def _kept(job: Job) -> list[int] | None:
    """Numbers in the teacher of the student's blocks, where it was pruned from it directly."""
    manifest = job.checkpoint.whet or {}
    steps = [record.get("step") for record in manifest.get("lineage", ()) if record.get("removal") is not None]
    layers = (manifest.get("kept") or {}).get("layers")
    return layers if len(steps) == 1 and layers and len(layers) == len(job.anatomy.blocks) else None


def _padded(windows: Sequence[Tensor]) -> Iterator[Batch]:
    """Windows in batches of about the same length."""
    ordered = sorted(range(len(windows)), key=lambda i: len(tokens_of(windows[i])), reverse=True)
    while ordered:
        longest = len(tokens_of(windows[ordered[0]]))
        count = max(1, _JUDGED // longest)
        numbers, ordered = ordered[:count], ordered[count:]
        ids = torch.zeros(len(numbers), longest, dtype=torch.int64)
        weights = torch.zeros(ids.shape)
        for row, number in enumerate(numbers):
            tokens = tokens_of(windows[number])
            ids[row, : len(tokens)], weights[row, : len(tokens)] = tokens, weights_of(windows[number])
        yield {"input_ids": ids, "weights": weights, "number": torch.tensor(numbers)}
