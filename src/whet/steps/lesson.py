"""A student and its teacher in memory: what a step of training compares, and how near they are on held-out text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from whet.apply.job import Job
from whet.apply.run import Run
from whet.checkpoint import load_model, load_tokenizer
from whet.distillation import Distillation, Teaching
from whet.events import OnEvent, without_plan
from whet.steps.coded_student import CodedStudent
from whet.train import PIECE, Batch, PackedRows, Schedule, Settings, noise, tokens_of, train, weights_of

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
        teacher = load_model(self.of.teacher, job.compute, job.device)
        teacher.requires_grad_(False)
        if self.short:
            for model in (self.student, teacher):
                model.set_attn_implementation("eager")
        self.autocast = job.compute != torch.float32
        with self._computing():
            self.teaching = Teaching(teacher, self.student, self.of.objective, _kept(job))
        end = load_tokenizer(job.checkpoint.path).eos_token_id
        self.rows = PackedRows(job.solve, self.of.batch, job.seed, end)
        self.held_out = list(_padded(job.verify))
        self.taught: list[Tensor] = []
        # the model is known part by part from here on, so its parameters may become others
        self.coded: CodedStudent | None = None
        if not job.checkpoint.dense:
            self.coded = CodedStudent(job.checkpoint, self.student, self.of, dense_rate(job))

    @property
    def short(self) -> bool:
        """Whether attention is computed plainly: on processors SDPA's backward is slow, a seventh of a step here."""
        return self.job.device == "cpu" and max(map(len, map(tokens_of, self.job.solve))) <= _PLAIN

    def train(self, steps: int, run: Run | None, tell: OnEvent | None) -> dict[str, Any]:
        """Train for so many steps, in the folder of `run` if there is one; returns what `whet.train.train` does."""
        of = self.of
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
            on_event=(lambda event: None) if tell is None else without_plan(tell),
        )

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
            other.teaching = Teaching(self.teaching.teacher.model, model, dataclasses.replace(self.of.objective))
        other.student = model
        return other

    @torch.no_grad()
    def _top1(self) -> float:
        right, count = 0, 0
        with self._computing():
            for batch in self._held_out():
                counted = batch["weights"] > 0
                picks = []
                for halves in (self.teaching.teacher, self.teaching.student):
                    states = halves.states(batch["input_ids"]).last_hidden_state[counted]
                    wide = [halves.logits(part)[:, : self.teaching.vocabulary].argmax(-1) for part in states.split(256)]
                    picks.append(torch.cat(wide))
                right += int((picks[0] == picks[1]).sum())
                count += len(picks[0])
        return right / max(1, count)

    def _computing(self) -> Any:
        kind = torch.device(self.job.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.autocast)

    def _held_out(self) -> Iterator[Batch]:
        for batch in self.held_out:
            yield {name: tensor.to(self.job.device) for name, tensor in batch.items()}

    def _batches(self, step: int) -> Sequence[Batch]:
        batch = self.rows(step)
        rows = max(1, self.of.at_once // batch["input_ids"].shape[1])
        return [
            {name: tensor[start : start + rows] for name, tensor in batch.items()}
            for start in range(0, len(batch["input_ids"]), rows)
        ]

    def _loss(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.teaching(model, batch)


def _kept(job: Job) -> list[int] | None:
    """Numbers in the teacher of the student's blocks, where it was pruned from it directly."""
    manifest = job.checkpoint.whet or {}
    steps = [record.get("step") for record in manifest.get("lineage", ()) if record.get("removal") is not None]
    layers = (manifest.get("kept") or {}).get("layers")
    return layers if len(steps) == 1 and layers and len(layers) == len(job.anatomy.blocks) else None


def _padded(windows: Sequence[Tensor]) -> Iterator[Batch]:
    """Windows in batches of about the same length."""
    ordered = sorted(windows, key=lambda window: len(tokens_of(window)), reverse=True)
    while ordered:
        longest = len(tokens_of(ordered[0]))
        count = max(1, _JUDGED // longest)
        some, ordered = ordered[:count], ordered[count:]
        ids = torch.zeros(len(some), longest, dtype=torch.int64)
        weights = torch.zeros(ids.shape)
        for number, window in enumerate(some):
            tokens = tokens_of(window)
            ids[number, : len(tokens)], weights[number, : len(tokens)] = tokens, weights_of(window)
        yield {"input_ids": ids, "weights": weights}
