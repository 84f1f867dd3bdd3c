"""The transformed original: a checkpoint in the run's folder that computes what the original does and rounds better.

Each group of linears that read one input takes the factors, or the rotation, that its transform finds for it, and what
gives the input takes the inverse (`whet.anatomy.folds`). Folds are computed in float64. What is rounded afterwards is
written in float32, so that nothing is lost in between. What stays is written in the type it had, and where that has 16
bits the factors give way: to those that make a norm's weights exact, or to powers of two where more than one tensor has
to be. So everything that comes after works on this checkpoint as it would on the original.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Group, Linear, Unfolded, anatomy, fold_groups, stream
from whet.apply.job import BATCH_TOKENS, Job
from whet.budget import tables
from whet.checkpoint import NAMED, Checkpoint, atomic, copied_files, read_header, write_json, write_tensors
from whet.errors import GateError, UsageError
from whet.events import OnEvent, Stage, note_event
from whet.grids import Grid
from whet.measure.divergence import score_tokens
from whet.messages import Message, first_of, listed, with_and
from whet.quantize import Reader, find_transform, loss
from whet.text import batches
from whet.transforms.folding import Fold, Held
from whet.transforms.notes import check_judged, folded_in
from whet.transforms.rotations import (
    LEARNED,
    STREAM,
    check_turning,
    keep_moments,
    learned,
    moment_bytes,
    random_rotations,
    turned_rest,
)
from whet.walk import BlockStep, Journal, SecondMoments, Untouched, Walk

FOLDER = "transformed"
_REST = "rest"
_TABLES = {"embedding": Message("embedding"), "head": Message("head")}
ATTENDED = "attention output"  # the input that a rotation of heads is of
# KL, in nats a token, between the original and the transformed that no rounding of 16 bits makes.
_DEFECT = 1e-3


Chosen = Callable[[int], Mapping[str, Fold]]  # what the groups of a block take, by name; those left out take nothing


def transformed(job: Job, run: Path, on_event: OnEvent, chosen: Chosen | None = None) -> Job:
    """`job` about the transformed original, which is made in the folder `run` or gone on with there.

    chosen: what each group takes, where it is known (`whet.transforms.judge`) and not to be found.
    """
    if job.transform is None or job.transforms is not None:
        return job
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    journal = Journal(folder)
    maker = _Maker(job, folder, journal, on_event, chosen)
    units = [*map(_unit, range(len(job.anatomy.blocks))), _REST]
    if not all(journal.finished(unit, folder) for unit in units):
        maker.make(run)
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes, str(job.checkpoint.path), job.anatomy.family)
    found = {
        name: told
        for index in range(len(parts.blocks))
        for name, told in journal.entries[_unit(index)]["groups"].items()
    }
    gap = journal.entries[_REST]["kl"]
    note = folded_in(job.transform, found, gap)
    on_event(note_event(note))
    return dataclasses.replace(
        job,
        checkpoint=checkpoint,
        anatomy=parts,
        source=job.original,
        transforms=found,
        notes=(*job.notes, note),
    )


def check_transform(job: Job) -> Job:
    """`job` with a note for everything that nothing folds into. Raises UsageError where that is all there is."""
    kind = job.transform
    if kind is None:
        return job
    check_judged(job)
    notes = _left_alone(job)
    turned = check_turning(job) if job.folding.stream else []
    if not job.folding.stream and not any(foldable(job, index)[0] for index in range(len(job.anatomy.blocks))):
        needs = Message("{kind} needs attention with several heads whose v is rounded", kind=kind)
        raise UsageError(
            "--transform {kind} folds into nothing of {model}. Leave it out. ({why})",
            kind=kind,
            model=job.name,
            why=listed(notes, "; ") if notes else needs,
        )
    return dataclasses.replace(job, notes=(*job.notes, *turned, *notes))


def _left_alone(job: Job) -> list[Message]:
    """What nothing folds into, a sentence a reason."""
    reasons: dict[tuple[str, Message], list[str]] = {}
    for index in range(len(job.anatomy.blocks)):
        for one in foldable(job, index)[1]:
            reasons.setdefault((one.reads, one.why), []).append(one.address)
    told = []
    for (reads, why), addresses in reasons.items():
        told.append(
            Message("no transform of the {reads} ({names}): {why}", reads=reads, names=first_of(addresses, 1), why=why)
        )
    return told


def transformed_bytes(job: Job) -> int:
    """Bytes of the transformed original on the disk, at most."""
    if job.transform is None:
        return 0
    types = stored_types(job)
    return moment_bytes(job) + sum(
        info.nbytes // info.dtype.itemsize * types.get(name, info.dtype).itemsize
        for name, info in job.checkpoint.tensors.items()
    )


def foldable(job: Job, index: int) -> tuple[list[Group], list[Unfolded]]:
    """The groups of a block that have anything to round, on grids whose rows are scaled apart."""
    groups, left = fold_groups(job.anatomy, index)
    found = []
    turns = job.folding.rotates
    if turns:
        groups = [group for group in groups if group.heads[0] > 1]
        left = [one for one in left if one.reads == ATTENDED]
    for group in groups:
        rounded = [linear for linear in (*group.readers, group.giver) if linear and linear.address in job.grids]
        shared = next((x for x in rounded if job.grids[x.address].rows != 1), None)
        if not any(linear.address in job.grids for linear in group.readers):
            continue
        if shared is not None:
            why = Message("rows share scales in {grid}", grid=job.grids[shared.address].name)
        elif turns and not rotatable(job, group):
            why = Message("16 bits do not hold rotated what stays in them")
        else:
            found.append(group)
            continue
        left.append(Unfolded(group.readers[0].address, group.readers[0].reads, why))
    return found, left


def rotatable(job: Job, group: Group) -> bool:
    """Whether all that a rotation of a group's heads changes is written in a type that holds it."""
    if group.heads[0] == 1 or group.giver is None:
        return False
    types = stored_types(job)
    names = [*(x.parameter for x in (*group.readers, group.giver)), *(name for name, _ in group.vectors)]
    return all(types.get(name, job.checkpoint.tensors[name].dtype).itemsize >= 4 for name in names)


def stored_types(job: Job) -> dict[str, torch.dtype]:
    """The types in which tensors that a transform changes are written: float32 where all in them are rounded
    afterwards."""
    changed = job.anatomy.linears()
    if job.folding.stream:
        changed += tables(job.anatomy)
    kept = {x.parameter for x in changed if x.address not in job.grids}
    return {
        linear.parameter: job.checkpoint.tensors[linear.parameter].dtype if linear.parameter in kept else torch.float32
        for linear in changed
    }


def _unit(index: int) -> str:
    return f"block {index}"


class _Maker:
    """Writes the transformed original, a file a block."""

    def __init__(self, job: Job, folder: Path, journal: Journal, on_event: OnEvent, chosen: Chosen | None) -> None:
        self.job, self.folder, self.journal, self.chosen = job, folder, journal, chosen
        self.kind, self.folding = job.transform or "", job.folding
        self.count = len(job.anatomy.blocks) + 1
        self.types = stored_types(job)
        done = sum(journal.finished(_unit(i), folder) is not None for i in range(self.count - 1))
        self.on_event, self.stage = on_event, Stage(on_event, "transform", self.count, done)
        self.solve = batches(job.solve, BATCH_TOKENS)
        self.verify = batches(job.verify, BATCH_TOKENS)
        self.rotations: dict[str, Tensor] = {}
        self.heads: list[list[Group]] = []
        if self.folding.rotates:
            self.heads = [foldable(job, index)[0] for index in range(self.count - 1)]

    def make(self, run: Path) -> None:
        """Everything that is not there yet."""
        job, parts = self.job, self.job.anatomy
        if self.folding.learned:
            self._learn(run)
        elif self.folding.rotates:
            self.rotations = random_rotations(job, self.heads)
        self.stage.start()
        if self.folding.rotates or self.chosen is not None:
            for index in range(len(parts.blocks)):
                self.block(index, None)
        elif self.stage.done < self.count - 1:
            self._walk(run)
        self._rest()

    def _learn(self, run: Path) -> None:
        """Learn rotations, from a walk that keeps what is known of every block's inputs."""
        if self.journal.finished(LEARNED, self.folder) is None:
            self._walk(run)
        self.rotations = learned(self.job, self.folder, self.journal, self.heads, self.on_event)

    def _walk(self, run: Path) -> None:
        """Visit every block with what reaches it in the original."""
        job, parts = self.job, self.job.anatomy
        table = job.checkpoint.read(parts.embedding.parameter)
        compute = job.compute
        walk = Walk(job.checkpoint, parts, self.solve, [], table, table, job.device, run, compute)
        walk.go(self)

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Transforms a block, which itself stays as it is."""
        if self.folding.learned:
            if not self.journal.finished(f"moments {step.index}", self.folder):
                moments = step.second_moments()
                keep_moments(self.job, self.folder, self.journal, step.index, moments, self.heads[step.index])
        elif not self.journal.finished(_unit(step.index), self.folder):
            self.block(step.index, step.second_moments(ranges=True))
        return {}

    def block(self, index: int, moments: SecondMoments | None) -> None:
        """Write block `index`."""
        if self.journal.finished(_unit(index), self.folder):
            return
        started = time.monotonic()
        held = Held(self.job, self.types, self.job.anatomy.block_tensors[index])
        told: dict[str, dict[str, Any]] = {}
        if self.folding.stream:
            touched = stream(self.job.anatomy, index)
            for group in touched.read:
                held.fold_norm(group)
                held.turn_inputs(group, self.rotations[STREAM])
                told[group.name] = {"transform": self.kind}
            held.turn_outputs(touched.writers, touched.biases, self.rotations[STREAM])
        chosen = None if self.chosen is None else self.chosen(index)
        for group in foldable(self.job, index)[0]:
            if chosen is not None:
                fold = chosen.get(group.name, Fold({"transform": "none", "loss": 1.0}))
            elif self.folding.rotates:
                fold = Fold({"transform": self.kind}, basis=self.rotations[group.name])
            else:
                assert moments is not None
                fold = _found(self.kind, self.job, held, group, moments)
            held.take(group, fold)
            told[group.name] = fold.told
        file = self.folder / f"model-{index + 1:05d}-of-{self.count:05d}.safetensors"
        write_tensors(file, held.finished())
        self.journal.record(_unit(index), file, groups=told, seconds=time.monotonic() - started)
        self.stage.step()

    def _rest(self) -> None:
        """Everything outside the blocks, index and config; then what the whole computes."""
        job = self.job
        file = self.folder / f"model-{self.count:05d}-of-{self.count:05d}.safetensors"
        names = [name for name in job.anatomy.other_tensors if name != job.anatomy.dropped]
        if self.folding.stream:
            rest = turned_rest(job, names, self.types, self.rotations[STREAM])
        else:
            rest = {name: job.checkpoint.read(name) for name in names}
        write_tensors(file, rest)
        mapping = {
            name: shard.name for shard in sorted(self.folder.glob("model-*.safetensors")) for name in read_header(shard)
        }
        write_json(self.folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": mapping})
        # the tokenizer and the like: whoever reads a checkpoint reads these beside it
        for name, beside in copied_files(job.checkpoint.path).items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            with atomic(self.folder / name) as temporary:
                shutil.copyfile(beside, temporary)
        config = {key: value for key, value in job.checkpoint.config.items() if key != NAMED}
        write_json(self.folder / "config.json", config)
        gap = self._gap()
        self.journal.record(_REST, file, kl=gap)
        self.stage.step()

    def _narrow(self, table: Linear) -> bool:
        """Whether an embedding or head that was turned is written in 16 bits."""
        return self.types.get(table.parameter, torch.float32).itemsize < 4

    def _gap(self) -> float | None:
        """KL(original ‖ transformed) in nats a token, over one batch of text. Raises GateError where it is a defect."""
        job = self.job
        given = (self.verify or self.solve)[:1]
        if not given:
            return None
        after = Checkpoint(self.folder)
        total, count = 0.0, 0
        ends = []
        for checkpoint in (job.checkpoint, after):
            parts = anatomy(checkpoint.config, checkpoint.shapes, str(checkpoint.path), job.anatomy.family)
            table = checkpoint.read(parts.embedding.parameter)
            walk = Walk(checkpoint, parts, given, [], table, table, job.device)
            walk.go(Untouched())
            head = checkpoint.read((parts.head or parts.embedding).parameter).to(job.device).float()
            ends.append((walk.skeleton, head, next(walk.final())))
        for row in range(len(given[0])):
            if job.anatomy.task == "causal":
                before, later = (skeleton.next_logits(states[row], head) for skeleton, head, states in ends)
            else:
                tokens = given[0][row : row + 1]
                both = [skeleton.outputs(tokens, states[row : row + 1]) for skeleton, _, states in ends]
                before, later = (logits.reshape(1, -1, logits.shape[-1]) for logits in both)
            nothing = torch.zeros(before.shape[1], dtype=torch.int64)[None]
            kl = score_tokens(before, later, nothing)[0]
            total, count = total + kl.double().sum().item(), count + kl.numel()
        if not total / count < _DEFECT:
            narrow = [_TABLES[table.role] for table in tables(job.anatomy) if self._narrow(table)]
            if self.folding.stream and narrow:
                raise GateError(
                    "{model}: {kind} loses KL {kl:.3g} nats a token before anything is rounded to codes, as {tables} "
                    "stay in 16 bits. Round them too (--embed with a scheme of 8 bits or fewer), or go on without "
                    "--transform.",
                    model=job.name,
                    kind=self.kind,
                    kl=total / count,
                    tables=with_and(narrow),
                )
            raise GateError(
                "{model}: with {kind} folded in it computes something else than before (KL {kl:.3g} nats a token). "
                "This is a defect of whet; please report it with the model's config.json, and go on without "
                "--transform.",
                model=job.name,
                kind=self.kind,
                kl=total / count,
            )
        return max(0.0, total / count)


def _found(kind: str, job: Job, held: Held, group: Group, moments: SecondMoments) -> Fold:
    """What `kind` finds for a group, with what rounding to nearest loses then as a share of what it lost."""
    readers = list(readers_of(job, held, group.readers, moments))

    def settle(factors: Tensor) -> Tensor:
        return held.settle(group, factors)

    find = find_transform(kind).find
    assert find is not None
    found = find(readers, settle)
    share = share_of(loss(readers, found.factors), loss(readers)) if found.share is None else found.share
    factors = found.factors.cpu().double()
    if not (factors != 1).any():
        return Fold({"transform": "none", "loss": 1.0})
    return Fold({"transform": kind, "loss": share}, factors)


def together(job: Job, linears: Sequence[Linear]) -> dict[tuple[str, Grid], list[Linear]]:
    """Those of `linears` that are to be rounded, by input and grid."""
    found: dict[tuple[str, Grid], list[Linear]] = {}
    for linear in linears:
        if (grid := job.grids.get(linear.address)) is not None:
            found.setdefault((linear.reads, grid), []).append(linear)
    return found


def readers_of(
    job: Job,
    held: Held,
    linears: Sequence[Linear],
    moments: SecondMoments,
    judge: SecondMoments | None = None,
) -> Iterator[Reader]:
    """Linears that are to be rounded, those of one input and one grid together."""
    for (reads, grid), some in together(job, linears).items():
        h = moments.steady(reads)
        yield Reader(
            torch.cat([held.weight(linear) for linear in some]),
            h,
            grid,
            moments.largest.get(reads, h.diagonal().sqrt()),
            None if judge is None else judge.mean(reads),
            moments.counts.get(reads, moments.tokens) / max(1, moments.tokens),
        )


def share_of(after: float, before: float) -> float:
    return after / before if before > 0 else 1.0
