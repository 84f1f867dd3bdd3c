"""The loss of a student beside its teacher, for the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whet.distillation.divergences import DIVERGENCES, forward_kl
from whet.distillation.halves import Halves, Heard
from whet.distillation.logits import AT_ONCE, log_chances, prediction_loss
from whet.distillation.panel import Panel
from whet.distillation.relations import relation_heads, relation_loss
from whet.distillation.states import Projections, layer_map, state_loss
from whet.errors import UsageError
from whet.train import Batch

_ROLES = ("q", "k", "v")


@dataclass(frozen=True)
class Objective:
    """What a student is to have of its teacher. loss, mix: a divergence of predictions and its parameter (None: the
    usual one). hidden, relations: weights of the losses on hidden states and on attention, beside that."""

    loss: str = "forward"
    mix: float | None = None
    temperature: float = 1.0
    hidden: float = 0.0
    relations: float = 0.0

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        usual = DIVERGENCES[self.loss].mix
        return asdict(self) | {"mix": usual if self.mix is None else self.mix}


@dataclass(frozen=True)
class Distillation:
    """What a student is taught by whom, and for how long. teacher, name, sha256: its folder, what it is called, and its
    hash once it was read whole. steps of about `batch` tokens, `at_once` of them together, at a learning rate of `rate`
    at the most, which falls as `schedule` says. checkpointing: as in `whet.train.Settings`. rounded: what of a
    quantized student is trained, `all` or `scales`, None of a dense one; coupled: whether weights move with their
    scales (`whet.grids.straight`). targets: the folder of what was drawn from the teacher, `draws` tokens a position,
    and its SHA-256 once it is known. own_text: the share of the steps, the last ones, in which the student learns from
    its own text too; writer: who writes that, `student` or `switch`; own_loss: by what it learns from that, `mixed` or
    `dpkd`. others: folders of more teachers, and
    others_sha256 their hashes."""

    objective: Objective
    teacher: Path | None
    name: str
    steps: int
    batch: int
    at_once: int
    rate: float
    schedule: str
    checkpointing: bool
    rounded: str | None = None
    coupled: bool = True
    sha256: str | None = None
    targets: Path | None = None
    draws: int | None = None
    targets_sha256: str | None = None
    own_text: float = 0.0
    writer: str = "student"
    own_loss: str = "mixed"
    others: tuple[Path, ...] = ()
    others_sha256: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        told = asdict(self) | {"objective": self.objective.record(), "teacher": self.name}
        gone = {"name", "targets"} if self.rounded is not None else {"name", "targets", "rounded", "coupled"}
        if self.targets is None:
            gone |= {"draws", "targets_sha256"}
        if self.others:
            told |= {"others": [one.name for one in self.others], "others_sha256": list(self.others_sha256)}
        else:
            gone |= {"others", "others_sha256"}
        if not self.own_text:
            gone |= {"own_text", "writer", "own_loss"}
        return {key: value for key, value in told.items() if key not in gone}


class Teaching:
    """A loss of `(student, batch)`: the weighted sum over positions, and the sum of the weights.

    batch: `input_ids [rows, positions]` and `weights` of the same shape, 0 where nothing is to be learnt (padding goes
    behind the text). kept: numbers in the teacher of the student's blocks, where they are its own. The teacher is
    not trained.
    """

    def __init__(self, teacher: Any, student: Any, objective: Objective, kept: Sequence[int] | None = None) -> None:
        self.teacher = teacher if isinstance(teacher, Halves | Panel) else Halves.of(teacher)
        self.student, self.objective = Halves.of(student), objective
        self.divergence = DIVERGENCES[objective.loss].bound(objective.mix)
        self.vocabulary = min(self.teacher.vocabulary, self.student.vocabulary)
        blocks = [len(one.parts.blocks) for one in (self.student, self.teacher)]
        self.pairs = layer_map(blocks[0], blocks[1], kept)
        self.heard = [Heard(one) for one in (self.student, self.teacher)] if objective.relations else []  # type: ignore[arg-type]
        if objective.relations and not all(role in one.places for one in self.heard for role in _ROLES):
            raise UsageError(
                "relations compares queries, keys and values, and {model} has none by these names. Leave it out.",
                model=type(student).__name__,
            )
        self.projections = Projections(
            len(self.pairs) if objective.hidden else 0,
            self.student.width,
            self.teacher.width,
            device=student.device,
        )

    def trained(self) -> nn.Module:
        """What the training loop is given: the student, and beside it what is dropped in the end."""
        return _Beside(self.student.model, self.projections) if len(self.projections.matrices) else self.student.model

    def beside(self, student: Any) -> Teaching:
        """The same of another student, to be measured."""
        return Teaching(self.teacher, student, self.objective)

    def __call__(self, _: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        weights, asked = batch["weights"], self.objective
        with torch.no_grad():
            theirs, taught = self._run(self.teacher, self.heard[1:], batch)
        mine, own = self._run(self.student, self.heard[:1], batch)
        total, count = prediction_loss(
            self.divergence,
            (mine.last_hidden_state, self.student.logits),
            (theirs.last_hidden_state, self.teacher.logits),
            weights,
            self.vocabulary,
            temperature=asked.temperature,
        )
        if asked.hidden:
            for number, (here, there) in enumerate(self.pairs):
                states = self.projections(number, mine.hidden_states[here + 1])
                found, _count = state_loss(states, theirs.hidden_states[there + 1], weights)
                total = total + asked.hidden / len(self.pairs) * found
        for role in _ROLES if asked.relations else ():
            heads = relation_heads(*(one.width(role) for one in self.heard))
            found, _count = relation_loss(own[role], taught[role], heads, weights)
            total = total + asked.relations / len(_ROLES) * found
        return total, count

    def _run(self, one: Halves | Panel, heard: Sequence[Heard], batch: Batch) -> tuple[Any, dict[str, Tensor]]:
        """States of a model, and what was heard of its last block."""
        every = bool(self.objective.hidden)
        if not heard:
            return one.states(batch["input_ids"], every, batch["weights"]), {}
        with heard[0] as found:
            return one.states(batch["input_ids"], every, batch["weights"]), found

    @torch.no_grad()
    def divergences(self, batch: Batch, taught: Tensor | None = None) -> Tensor:
        """The forward KL at every position of a batch `[rows, positions]`, float32, whatever is trained on. taught: the
        teacher's final states of it, where they are known."""
        ids = batch["input_ids"]
        taught = self.taught(batch) if taught is None else taught
        mine = self.student.states(ids).last_hidden_state
        rows = max(1, AT_ONCE // (4 * self.vocabulary))
        found = []
        for own, their in zip(mine.flatten(0, 1).split(rows), taught.flatten(0, 1).split(rows), strict=True):
            p = log_chances(self.teacher.logits(their), self.vocabulary)
            found.append(forward_kl(p, log_chances(self.student.logits(own), self.vocabulary)))
        return torch.cat(found).view(ids.shape)

    @torch.no_grad()
    def agreeing(self, batch: Batch) -> Tensor:
        """At every position with a weight, whether the likeliest tokens of both are the same `[n]`."""
        picks = []
        for halves in (self.teacher, self.student):
            states = halves.states(batch["input_ids"], weights=batch["weights"]).last_hidden_state
            states = states[batch["weights"] > 0]
            wide = [halves.logits(part)[:, : self.vocabulary].argmax(-1) for part in states.split(256)]
            picks.append(torch.cat(wide))
        return picks[0] == picks[1]

    @torch.no_grad()
    def taught(self, batch: Batch) -> Tensor:
        """The teacher's final states of a batch, `[rows, positions, hidden]`."""
        states: Tensor = self.teacher.states(batch["input_ids"], weights=batch["weights"]).last_hidden_state
        return states


class _Beside(nn.Module):
    """A student and what is trained beside it."""

    def __init__(self, student: Any, projections: nn.Module) -> None:
        super().__init__()
        self.student, self.projections = student, projections

    def activation_checkpointing_enable(self, how: Any) -> None:
        self.student.activation_checkpointing_enable(how)

    def activation_checkpointing_disable(self) -> None:
        self.student.activation_checkpointing_disable()
