"""The last share of a student's training: a third of what it learns from is text that it writes itself, as it is then,
and the teacher says what it would have written at each place (on-policy distillation, GKD). The rest is the text that
it learnt from before, so that it forgets nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from whet.apply.job import Job
from whet.checkpoint import load_tokenizer
from whet.distillation import (
    Halves,
    Panel,
    Written,
    distinct,
    likeliest_loss,
    log_chances,
    preferred_loss,
    said,
    written,
)
from whet.train import Batch, Watch

OWN = 1 / 3  # of the tokens of a step
NEW = 256  # tokens that are written after a prompt, at most
_PROMPT = 0.25  # of a row
# The weight of the forward KL, and what it is where the student is surer than the teacher, so that it does not narrow.
_FORWARD, _FORWARD_WHERE_SURE, _SURE = 0.5, 0.8, 0.7
_CHUNK = 256


@dataclass
class OwnText:
    """What the student writes in a step.

    first: the first step with it. windows: prompts begin as these do. length: of a row. tokens: of it in a step, about.
    switch: whether the teacher steps in while it is written. preferred: whether the teacher writes as much beside it,
    which the student is to prefer (DPKD).
    """

    job: Job
    student: Halves
    teacher: Halves | Panel
    first: int
    tokens: int
    switch: bool
    preferred: bool
    watch: Watch

    def __post_init__(self) -> None:
        tokenizer = load_tokenizer(self.job.checkpoint.path)
        said = getattr(self.student.model.generation_config, "eos_token_id", None)
        self.ends = {one for one in (*(said if isinstance(said, list) else [said]), tokenizer.eos_token_id)} - {None}
        self.special = list(tokenizer.all_special_ids)
        self.vocabulary = min(self.student.vocabulary, self.teacher.vocabulary)
        self.length = max(map(len, self.job.solve))
        self.prompt = max(1, round(_PROMPT * self.length))
        self.windows = [window for window in self.job.solve if len(window) >= self.prompt]
        self.rows = max(1, self.tokens // self.length)

    def batches(self, step: int, at_once: int) -> list[Batch]:
        """Batches of what the student writes now: with the teacher's states `taught`, and the weight `forward`."""
        model = self.student.model
        training = model.training
        model.eval()
        try:
            seed = 1_000_003 * (self.job.seed + 1) + step * 4096
            chance = torch.Generator().manual_seed(seed)
            picks = torch.randint(len(self.windows), (self.rows,), generator=chance).tolist()
            prompts = torch.stack([self.windows[pick][: self.prompt] for pick in picks]).to(model.device)
            made = self._written(self.student, prompts, seed, self.teacher if self.switch else None)
            chosen = self._written(self.teacher, prompts, seed + 2048) if self.preferred else None
        finally:
            model.train(training)
        weights = made.weights.to(model.device)
        taught, entropy = self._taught(made.ids, weights)
        new = made.ids[:, self.prompt :].tolist()
        rows = [row[:size] for row, size in zip(new, made.lengths, strict=True)]
        more = {"stepped_in": made.stepped_in} if self.switch else {}
        self.watch.look(made.entropy, entropy, distinct(rows), sum(made.lengths) / len(rows), **more)
        if chosen is not None:
            return self._pairs(made, chosen, at_once)
        sure = made.entropy < _SURE * entropy
        forward = torch.tensor(_FORWARD_WHERE_SURE if sure else _FORWARD)
        whole = {"input_ids": made.ids, "weights": weights, "taught": taught}
        some = max(1, at_once // made.ids.shape[1])
        return [
            {name: tensor[start : start + some] for name, tensor in whole.items()} | {"forward": forward}
            for start in range(0, len(made.ids), some)
        ]

    def _written(self, by: Halves | Panel, prompts: Tensor, seed: int, other: Halves | Panel | None = None) -> Written:
        assert isinstance(by, Halves) and not isinstance(other, Panel)
        return written(
            by,
            prompts,
            min(NEW, max(1, self.length - self.prompt)),
            seed,
            vocabulary=self.vocabulary,
            ends=self.ends,
            special=self.special,
            teacher=other,
        )

    @torch.no_grad()
    def _pairs(self, own: Written, chosen: Written, at_once: int) -> list[Batch]:
        """Batches of pairs `[2, rows, positions]`, the teacher's first, with the log-probabilities that it gives."""
        found, device = [], self.student.model.device
        size = max(one.ids.shape[1] for one in (own, chosen))
        ids = torch.stack([F.pad(one.ids, (0, size - one.ids.shape[1])) for one in (chosen, own)])
        weights = torch.stack([F.pad(one.weights, (0, size - one.weights.shape[1])) for one in (chosen, own)])
        weights = weights.to(device)
        some = max(1, at_once // (2 * size))
        for start in range(0, ids.shape[1], some):
            batch = {"input_ids": ids[:, start : start + some], "weights": weights[:, start : start + some]}
            found.append(batch | {"preferred": self._said(self.teacher, batch)})
        return found

    def _said(self, one: Halves | Panel, batch: Batch) -> Tensor:
        """Mean log-probabilities `[2, n]` that a model gives to pairs."""
        ids, weights = batch["input_ids"].flatten(0, 1), batch["weights"].flatten(0, 1)
        states = one.states(ids).last_hidden_state
        return said(states, one.logits, ids, weights, self.vocabulary).view(2, -1)

    @torch.no_grad()
    def _taught(self, ids: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        """The teacher's final states of rows, and its mean entropy where a weight is."""
        states: Tensor = self.teacher.states(ids, weights=weights).last_hidden_state
        total = 0.0
        for some in states[weights > 0].split(_CHUNK):
            p = log_chances(self.teacher.logits(some), self.vocabulary)
            total -= float((p.exp() * p.clamp_min(-1e4)).sum())
        return states, total / max(1, int((weights > 0).sum()))

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Half forward and half reverse KL on the teacher's likeliest tokens, or what is lost by preferring the
        student's own text, which counts for all tokens of a pair: the weighted sum, and that of weights."""
        if "preferred" in batch:
            counts = batch["weights"].sum((0, 2))
            lost = preferred_loss(self._said(self.student, batch), batch["preferred"])
            return (lost * counts).sum(), counts.sum()
        mine = self.student.states(batch["input_ids"]).last_hidden_state
        student, teacher = (mine, self.student.logits), (batch["taught"], self.teacher.logits)
        return likeliest_loss(student, teacher, batch["weights"], self.vocabulary, batch["forward"])


def own_steps(steps: int, share: float) -> int:
    """Of so many steps, those with text of the student's own."""
    return math.ceil(share * steps)


def without_some(batch: Batch) -> Batch:
    """The rows of a batch that stay where the student's own text takes the place of the others; one at least."""
    rows = len(batch["input_ids"])
    left = max(1, rows - round(OWN * rows))
    return {name: tensor[:left] for name, tensor in batch.items()}
