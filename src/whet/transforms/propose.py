"""What `auto` proposes for each group of linears, and those linears rounded under every proposal.

A transform is proposed where rounding with the run's solver loses less on the verifying text, linear by linear, in
second moments. That is cheap, and says nothing of the whole yet, which `whet.transforms.judge` asks. What was rounded
is kept as codes, so that every proposal can be put into the original by itself: rounded under a transform T and brought
back, a linear is round(w T) T⁻¹.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from whet.anatomy import Group, Linear
from whet.apply.job import BATCH_TOKENS, Job
from whet.checkpoint import TensorInfo, read_header, read_tensor, write_tensors
from whet.events import OnEvent, Stage
from whet.quantize import TRANSFORMS, Reader, loss, random_hadamard
from whet.text import batches
from whet.transforms.folding import Fold, Held
from whet.transforms.make import foldable, readers_of, rotatable, share_of, stored_types, together
from whet.transforms.rotations import seed_of
from whet.walk import BlockStep, Journal, SecondMoments, Walk

NONE = "none"  # the group as it is, rounded too where anything is proposed for it
# Rows that are rounded to tell what a transform keeps, before any is rounded whole.
_ROWS = 512


class Proposals:
    """Proposals in a folder of the run, a file a block: made, or gone on with, by `make`."""

    def __init__(self, job: Job, folder: Path, on_event: OnEvent) -> None:
        self.job, self.folder, self.journal = job, folder, Journal(folder)
        self.types = stored_types(job)
        self.solve, self.verify = batches(job.solve, BATCH_TOKENS), batches(job.verify, BATCH_TOKENS)
        self.count = len(job.anatomy.blocks)
        self.stage = Stage(on_event, "propose", self.count, sum(map(self._finished, range(self.count))))

    def make(self, run: Path) -> None:
        """Those that an earlier run did not."""
        if self.stage.done == self.count:
            return
        job, parts = self.job, self.job.anatomy
        table = job.checkpoint.read(parts.embedding.parameter)
        compute = job.compute
        given = [*self.solve, *self.verify]
        Walk(job.checkpoint, parts, given, [], table, table, job.device, run, compute).go(self)

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Proposes for the groups of a block, which itself stays as it is."""
        if self._finished(step.index):
            return {}
        started = time.monotonic()
        job, index = self.job, step.index
        moments = step.second_moments(range(len(self.solve)), ranges=True)
        judge = step.second_moments(range(len(self.solve), len(self.solve) + len(self.verify)))
        held = Held(job, self.types, job.anatomy.block_tensors[index])
        told: dict[str, dict[str, float]] = {}
        tensors: dict[str, Tensor] = {}
        for number, group in enumerate(foldable(job, index)[0]):
            folds = list(_proposed(job, held, group, moments, judge, seed_of(job, index, number)))
            told[group.name] = {fold.told["transform"]: fold.told["loss"] for fold in folds}
            for fold in [Fold({"transform": NONE}), *folds] if folds else []:
                name = swap_name(group.name, fold.told["transform"])
                tensors |= {f"{name}|{part}": t for part in _PARTS if (t := getattr(fold, part)) is not None}
                for linear, codes in _rounded(job, held, group, fold, moments, "rotate" in told[group.name]):
                    tensors |= {f"{name}|{linear.address}|{part}": t for part, t in codes.items()}
        file = self.folder / f"proposals-{index:05d}.safetensors"
        write_tensors(file, {name: tensor.cpu().clone() for name, tensor in tensors.items()})
        self.journal.record(_unit(index), file, groups=told, seconds=time.monotonic() - started)
        self.stage.step()
        return {}

    def told(self, index: int) -> dict[str, dict[str, float]]:
        """By group of a block what each proposal loses, linear by linear, as a share of what none loses."""
        found: dict[str, dict[str, float]] = self.journal.entries[_unit(index)]["groups"]
        return found

    def linears(self, index: int) -> dict[str, list[Linear]]:
        """By group of a block the linears that were rounded under each of its proposals."""
        return {
            group.name: _linears(self.job, group, "rotate" in told)
            for group in foldable(self.job, index)[0]
            if (told := self.told(index)[group.name])
        }

    def fold(self, index: int, group: str, transform: str) -> Fold:
        """A proposal of a block's group, as it is folded in."""
        stored, name = self._stored(index), swap_name(group, transform)
        parts = {part: read_tensor(stored[f"{name}|{part}"]) for part in _PARTS if f"{name}|{part}" in stored}
        return Fold({"transform": transform, "loss": self.told(index)[group][transform]}, **parts)

    def weights(self, index: int) -> dict[str, dict[str, Tensor]]:
        """By `swap_name` what the linears of a block's groups are in the original, `[out, in]` by address, float32."""
        stored, device = self._stored(index), self.job.device
        linears = self.linears(index)
        found: dict[str, dict[str, Tensor]] = {}
        for group in foldable(self.job, index)[0]:
            for transform in (NONE, *self.told(index)[group.name]) if group.name in linears else ():
                name = swap_name(group.name, transform)
                fold = Fold({}) if transform == NONE else self.fold(index, group.name, transform)
                mine: dict[str, Tensor] = {}
                for linear in linears[group.name]:
                    parts = _codes(stored, f"{name}|{linear.address}|", device)
                    grid = self.job.grids[linear.address]
                    mine[linear.address] = _back(group, fold, linear, grid.decode(parts.pop("codes"), parts))
                found[name] = mine
        return found

    def _finished(self, index: int) -> bool:
        return self.journal.finished(_unit(index), self.folder) is not None

    def _stored(self, index: int) -> dict[str, TensorInfo]:
        return read_header(self.folder / f"proposals-{index:05d}.safetensors")


_PARTS = ("factors", "basis")


def swap_name(group: str, transform: str) -> str:
    """What a group rounded under a transform is called among the swaps."""
    return f"{group}|{transform}"


def _unit(index: int) -> str:
    return f"block {index}"


def _codes(stored: Mapping[str, TensorInfo], prefix: str, device: str) -> dict[str, Tensor]:
    names = [name for name in stored if name.startswith(prefix)]
    return {name.removeprefix(prefix): read_tensor(stored[name]).to(device) for name in names}


def _proposed(
    job: Job, held: Held, group: Group, moments: SecondMoments, judge: SecondMoments, seed: int
) -> Iterator[Fold]:
    """What loses less than none, of factors and of the rotation of its heads, on the verifying text."""
    solve = job.effort.solve
    readers = list(readers_of(job, held, group.readers, moments, judge))
    solving = [dataclasses.replace(reader, judge=None) for reader in readers]

    def settle(factors: Tensor) -> Tensor:
        return held.settle(group, factors)

    some = [reader.sampled(_ROWS) for reader in readers]
    before = loss(some, solve=solve)
    for name, row in TRANSFORMS.items():
        if row.find is None:
            continue
        factors = row.find(solving, settle).factors
        if (factors != 1).any() and (share := share_of(loss(some, factors, solve), before)) < 1:
            yield Fold({"transform": name, "loss": share}, factors.cpu().double())
    if group.heads[0] > 1 and group.giver is not None and rotatable(job, group):
        basis = random_hadamard(group.given // group.heads[0], seed)
        columns, rows = _turns(group, basis, readers[0].w)
        share = share_of(sum(one.rotated(columns).loss(solve) for one in some), before)
        for given in readers_of(job, held, [group.giver], moments, judge):
            after = dataclasses.replace(given, w=rows.t() @ given.w).sampled(_ROWS)
            share = (share + share_of(after.loss(solve), given.sampled(_ROWS).loss(solve))) / 2
        if share < 1:
            yield Fold({"transform": "rotate", "loss": share}, basis=basis)


def _linears(job: Job, group: Group, turned: bool) -> list[Linear]:
    """Those whose rounding depends on what a group takes: its readers, and of a rotation what gives their input.

    (Rows that are divided by a factor are rounded as before: scales are by row.)
    """
    giver = [group.giver] if turned and group.giver is not None else []
    return job.chosen([*group.readers, *giver])


def _rounded(
    job: Job, held: Held, group: Group, fold: Fold, moments: SecondMoments, turned: bool
) -> Iterator[tuple[Linear, dict[str, Tensor]]]:
    """Codes and parameters of a group's linears, rounded under what it takes."""
    solve = job.effort.solve
    linears = _linears(job, group, turned)
    readers = readers_of(job, held, linears, moments)
    for (_, some), reader in zip(together(job, linears).items(), readers, strict=True):
        inside = _under(group, fold, some[0], reader)
        solution = solve(inside.w, inside.h, inside.grid)
        ends = list(itertools.accumulate(linear.shape[0] for linear in some))
        for linear, start, end in zip(some, [0, *ends], ends, strict=False):
            own = solution.rows(start, end)
            yield linear, {"codes": own.codes, **own.params}


def _under(group: Group, fold: Fold, linear: Linear, reader: Reader) -> Reader:
    """`reader`, which `linear` is of, as it is with `fold` in the group.

    What gives a group's input is divided by factors row by row, and is rounded as before: scales are by row.
    """
    if fold.factors is not None:
        return reader if linear == group.giver else reader.scaled(fold.factors.to(reader.w))
    if fold.basis is not None:
        columns, rows = _turns(group, fold.basis, reader.w)
        if linear == group.giver:
            return dataclasses.replace(reader, w=rows.t() @ reader.w)
        return reader.rotated(columns)
    return reader


def _back(group: Group, fold: Fold, linear: Linear, w: Tensor) -> Tensor:
    """`w [out, in]`, rounded with `fold` in the group, in the coordinates of the original."""
    w = w.float()
    if fold.factors is not None:
        return w if linear == group.giver else w / fold.factors.to(w)
    if fold.basis is not None:
        columns, rows = _turns(group, fold.basis, w)
        return rows @ w if linear == group.giver else w @ columns.t()
    return w


def _turns(group: Group, basis: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """What turns the columns `[in, in]` of a group's readers, and the rows `[given, given]` of what gives them."""
    heads, each = group.heads
    columns, rows = (torch.block_diag(*[basis] * count).to(like) for count in (heads * each, heads))
    return columns, rows
