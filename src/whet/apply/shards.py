"""The shards of a pass: each part's file written as soon as it is finished, proved, journalled, and read back."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Linear, Piece
from whet.apply.job import Job
from whet.checkpoint import adapter_tensors, read_factors, read_header, read_tensor, replace, write_tensors
from whet.checkpoint.modeling_whet import decode, parts_of
from whet.errors import GateError, UsageError
from whet.events import OnEvent, Stage
from whet.grids import Grid
from whet.messages import Message, to_json
from whet.quantize import Solution
from whet.walk import Journal

# What a unit takes that is only copied, over a block that is rounded.
_COPYING = 0.02


class Shards:
    """Writes the units of a pass, and takes what an earlier run finished from the disk.

    Units are `embedding`, `block 0` …, `rest`; each is one shard in `out`. `weights` are decoded from what was stored,
    so the lighter stream runs on exactly what will be loaded. The journal, and adapters until they become one, lie in
    the folder `run`.
    """

    def __init__(self, job: Job, out: Path, run: Path, on_event: OnEvent) -> None:
        self.job, self.out, self.run, self.journal = job, out, run, Journal(run)
        self.count = len(job.anatomy.blocks) + 2
        self._done = {name for name in self.units() if self.journal.finished(name, out) and self._adapted(name)}
        self.on_event = on_event
        self.stage = Stage(on_event, "compress", self.count, len(self._done), self._sizes())

    def units(self) -> list[str]:
        """Every unit in the order of the run."""
        return ["embedding", *(f"block {i}" for i in range(len(self.job.anatomy.blocks))), "rest"]

    def file_of(self, unit: str) -> Path:
        """The shard that holds `unit`."""
        stem = "model" if self.job.storage.stock else "whet"
        return self.out / f"{stem}-{self.units().index(unit) + 1:05d}-of-{self.count:05d}.safetensors"

    def finished(self, unit: str) -> bool:
        """Whether `unit` is written."""
        return unit in self._done

    def finish(
        self,
        unit: str,
        tensors: dict[str, Tensor],
        report: dict[str, Any],
        linears: list[Linear],
        started: float,
        **more: Any,
    ) -> dict[str, Tensor]:
        """Write `unit` and note it in the journal with a line a linear; returns the lighter weights of `linears`."""
        file = self.file_of(unit)
        write_tensors(file, tensors)
        seconds = time.monotonic() - started
        self.journal.record(unit, file, linears=report, seconds=seconds, **more)
        self._done.add(unit)
        self.stage.step(unit=unit, seconds=seconds)
        return self.weights(unit, linears)

    def copy(self, unit: str, names: list[str]) -> None:
        """Write a unit of tensors that stay as they are."""
        if not self.finished(unit):
            tensors = {name: self.job.checkpoint.read(name) for name in names}
            self.finish(unit, tensors, {}, [], time.monotonic())

    def stored(self, piece: Piece, solution: Solution, grid: Grid, values: Tensor) -> dict[str, Tensor]:
        """The stored tensors of `solution`, proved to decode to `values`, which were solved."""
        parts = grid.stored_parts(solution.codes.cpu(), {k: v.cpu() for k, v in solution.params.items()})
        again = decode(parts, self.job.entry(grid), self.job.dtype)
        if not torch.isfinite(again).all():
            raise UsageError(
                "{address}: its weights as {grid} exceed what {dtype} holds. Convert the original to bfloat16 or "
                "float32 first.",
                address=piece.address,
                grid=grid.name,
                dtype=self.job.dtype,
            )
        if not torch.equal(values.cpu(), again):
            raise GateError(
                "{address}: what was stored is not what was computed. This is a defect of whet; please report it with "
                "the scheme ({grid}) and the shape {shape}.",
                address=piece.address,
                grid=grid.name,
                shape=piece.shape,
            )
        return {f"{piece.address}.{part}": tensor for part, tensor in parts.items()}

    def in_place(self, names: list[str], solved: Mapping[Linear, Tensor]) -> dict[str, Tensor]:
        """The original's tensors `names` with the weights `[out, in]` of `solved` in them, in the type they have."""
        tensors = {name: self.job.checkpoint.read(name) for name in names}
        for linear, w in solved.items():
            own = linear.view(tensors[linear.parameter])
            own.copy_(w)
            if not torch.isfinite(own).all():
                raise UsageError(
                    "{linear}: weights that make up for others exceed what {dtype} holds. Convert the original to "
                    "bfloat16 or float32 first.",
                    linear=linear.address,
                    dtype=own.dtype,
                )
        return tensors

    def weights(self, unit: str, linears: list[Linear]) -> dict[str, Tensor]:
        """The lighter weights of `linears`, float32, decoded from the file of `unit` as the target computes them."""
        if not linears:
            return {}
        stored = read_header(self.file_of(unit))
        if self.job.storage.dense:
            return {x.address: x.view(read_tensor(stored[x.parameter])).to(self.job.device).float() for x in linears}
        wanted = {linear.address for linear in linears}
        weights = {}
        for piece in self.job.pieces:
            if not any(linear.address in wanted for linear in piece.linears):
                continue
            entry = self.job.entry(self.job.grids[piece.linears[0].address])
            names = {part: f"{piece.address}.{part}" for part in parts_of(entry) or {"weight"}}
            parts = {part: read_tensor(stored[name]).to(self.job.device) for part, name in names.items()}
            whole = decode(parts, entry, self.job.dtype).float()
            row = 0
            for linear in piece.linears:
                weights[linear.address] = whole[row : row + linear.shape[0]]
                row += linear.shape[0]
        index = _block_of(unit)
        added = {} if index is None else self.added(index)
        return summed({address: w for address, w in weights.items() if address in wanted}, added)

    def rewrite(self, tensors: Mapping[str, Tensor]) -> None:
        """Write every unit that holds any of `tensors` (by stored name) once more, with those in place of its own."""
        for unit in self.units():
            entry = self.journal.entries[unit]
            stored = read_header(self.file_of(unit))
            new = {name: tensors[name] for name in stored if name in tensors}
            if not new or entry.get("tuned"):
                continue
            made = self.run / "retuned.safetensors"
            write_tensors(made, {name: new.get(name, read_tensor(info)) for name, info in stored.items()})
            line = {key: value for key, value in entry.items() if key not in ("unit", "file", "sha256", "bytes")}
            # the line first: a run that is killed in between finds the file that was there, and its own line
            self.journal.record(unit, self.file_of(unit), made, **{**line, "tuned": True})
            replace(made, self.file_of(unit))

    def keep_factors(self, index: int, factors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Write the adapter of block `index` into the run's folder. factors: by address, as `Part.factors`."""
        tensors: dict[str, Tensor] = {}
        for module in self.job.repaired:
            found = [factors.get(linear.address) for linear in module.linears]
            a = next((own[1] for own in found if own is not None), None)
            if a is None:
                continue
            rows = [
                a.new_zeros(linear.shape[0], len(a)) if own is None else own[0]  # what stays has no error
                for linear, own in zip(module.linears, found, strict=True)
            ]
            tensors |= adapter_tensors(module.name, torch.cat(rows).cpu(), a.cpu())
        write_tensors(self._adapter_file(index), tensors)
        self.journal.record(_adapter(index), self._adapter_file(index), linears={}, seconds=0.0)

    def factors(self, index: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Module -> (B `[out, r]`, A `[r, in]`) of what repairs block `index`, as stored."""
        return read_factors(self._adapter_file(index)) if self.job.repaired else {}

    def added(self, index: int) -> dict[str, Tensor]:
        """What repairs add to the linears of block `index`, `[out, in]` by address, float32."""
        factors = self.factors(index)
        found: dict[str, Tensor] = {}
        for module in self.job.repaired:
            if module.name in factors:
                b, a = (one.to(self.job.device).float() for one in factors[module.name])
                rows = (b @ a).split([linear.shape[0] for linear in module.linears])
                found |= {linear.address: part for linear, part in zip(module.linears, rows, strict=True)}
        return found

    def _sizes(self) -> list[float]:
        """How long units take beside each other: by what is rounded of them, and little for what is only copied."""
        parts, grids = self.job.anatomy, self.job.grids

        def size(linears: Sequence[Linear]) -> float:
            every = [math.prod(linear.shape) for linear in linears if linear.address in grids]
            return _COPYING * most + sum(every)

        most = max(sum(math.prod(linear.shape) for linear in block) for block in parts.blocks)
        head = [] if parts.head is None else [parts.head]
        return [size(linears) for linears in ([parts.embedding], *parts.blocks, head)]

    def _adapted(self, unit: str) -> bool:
        """Whether an earlier run kept the adapter of `unit`, if it is to have one."""
        index = _block_of(unit)
        if index is None or not self.job.repaired:
            return True
        return self.journal.finished(_adapter(index), self.run) is not None

    def _adapter_file(self, index: int) -> Path:
        return self.run / f"adapter-{index:05d}.safetensors"


def summed(weights: Mapping[str, Tensor], added: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by address with what repairs add to them."""
    return {address: w + added[address] if address in added else w for address, w in weights.items()}


def report_line(linear: Linear, grid: Grid, solution: Solution, error: float) -> dict[str, Any]:
    """What the journal and whet.json tell of a rounded linear."""
    line: dict[str, Any] = {"grid": grid.name, "shape": list(linear.shape), "role": linear.role, "error": error}
    notes = list(solution.notes)
    if grid.scale_dtype == torch.float32:
        notes.append(Message("scales kept in float32: float16 would lose them"))
    return {**line, "notes": to_json(notes)} if notes else line


def _block_of(unit: str) -> int | None:
    """The number of the block that a unit is; None for embedding and rest."""
    kind, _, number = unit.partition(" ")
    return int(number) if kind == "block" else None


def _adapter(index: int) -> str:
    """What the adapter of block `index` is called in the journal."""
    return f"adapter {index}"
