"""The visitor that rounds a block, and the writing of each part's file as soon as it is finished."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Linear, Piece
from whet.checkpoint import read_header, read_tensor, replace, write_tensors
from whet.checkpoint.modeling_whet import PARTS, decode
from whet.errors import GateError, UsageError
from whet.events import OnEvent, Stage
from whet.formats import stored_parts, table_entry
from whet.grids import FloatGrid, Grid, GroupedGrid, SmallFloatGrid, safe_scale_dtype
from whet.quantize import SOLVERS, Solution, Start, asymmetric_target, nearest, pull, round_block, second_moment_error
from whet.recipe.decide import Decision
from whet.walk import BlockStep, Journal, SecondMoments

# Rows of an embedding or head solved at once: bounds memory for large vocabularies.
_ROWS = 8192

Solved = tuple[Solution, Grid, Tensor]  # and the values that readers compute, float32


@dataclass(frozen=True)
class _Part:
    """A linear that was rounded: its original weights `[out, in]`, the second moment of its inputs if there is one, and
    for an expert the share of the tokens it saw, if that is too few."""

    linear: Linear
    w: Tensor
    h: Tensor | None
    grid: Grid
    solution: Solution
    starved: float | None


class Solver:
    """Rounds linears onto their grids, writes their file, and takes what an earlier run finished from the disk.

    Units are `embedding`, `block 0` …, `rest`; each is one shard. `weights` are decoded from what was stored, so the
    lighter stream runs on exactly what will be loaded.
    """

    def __init__(self, decision: Decision, out: Path, journal: Journal, on_event: OnEvent) -> None:
        self.decision, self.out, self.journal = decision, out, journal
        self.count = len(decision.anatomy.blocks) + 2
        self._done = {name for name in self.units() if journal.finished(name, out)}
        self.stage = Stage(on_event, "compress", self.count, len(self._done))
        self.metric: Callable[[int], Tensor] | None = None  # what an error of a block's output costs, if that is known

    def units(self) -> list[str]:
        """Every unit in the order of the run."""
        return ["embedding", *(f"block {i}" for i in range(len(self.decision.anatomy.blocks))), "rest"]

    def file_of(self, unit: str) -> Path:
        """The shard that holds `unit`."""
        stem = "model" if self.decision.storage.container == "compressed-tensors" else "whet"
        return self.out / f"{stem}-{self.units().index(unit) + 1:05d}-of-{self.count:05d}.safetensors"

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Round the linears of a block together where they share an input; returns the lighter weights."""
        unit = f"block {step.index}"
        if unit in self._done:
            return self.weights(unit, step.linears)
        started = time.monotonic()
        moments = step.second_moments(drifts=self.decision.asymmetric)
        return self._round_block(step.index, step.linears, step.weight, moments, started, step)

    def round_block(self, index: int, linears: list[Linear]) -> None:
        """Round block `index` without any inputs: the weights are read and nothing runs."""
        if f"block {index}" in self._done:
            return

        def weight(linear: Linear) -> Tensor:
            return linear.view(self.decision.checkpoint.read(linear.parameter).to(self.decision.device).float())

        self._round_block(index, linears, weight, None, time.monotonic())

    def _round_block(
        self,
        index: int,
        linears: list[Linear],
        weight: Callable[[Linear], Tensor],
        moments: SecondMoments | None,
        started: float,
        step: BlockStep | None = None,
    ) -> dict[str, Tensor]:
        solved: dict[str, Solved] = {}
        report: dict[str, Any] = {}
        parts: Iterable[_Part] = self._one_by_one(linears, weight, moments)
        trained: dict[str, Any] = {}
        if step is not None and self.decision.blockwise:
            parts, lost = self._together(step, list(parts))
            trained = {} if lost is None else {"trained": lost}
        for part in parts:
            linear, rounded = part.linear, self._values(part.solution, part.grid)
            error = _relative(part.w, rounded) if part.h is None else second_moment_error(part.w, rounded, part.h)
            line = report[linear.address] = _line(linear, part.grid, part.solution, error)
            if part.starved is not None:
                line["starved"] = part.starved
            solved[linear.address] = (part.solution, part.grid, rounded)
        tensors = self._pieces(index, solved)
        return self._finish(f"block {index}", tensors, report, linears, started, **trained)

    def _one_by_one(
        self, linears: list[Linear], weight: Callable[[Linear], Tensor], moments: SecondMoments | None
    ) -> Iterator[_Part]:
        """Each linear rounded by itself; those that share an input and a grid are solved in one."""
        by_input: dict[tuple[str, Grid, str], list[Linear]] = {}
        for linear in linears:
            grid = self.decision.grids[linear.address]
            by_input.setdefault((linear.reads, grid, self._apart(linear, grid)), []).append(linear)
        left = Counter(reads for reads, *_ in by_input)
        for (reads, grid, _), together in by_input.items():
            # several schemes may read one input: its second moment goes with the last of them
            h = None if moments is None else moments.mean(reads)
            left[reads] -= 1
            if moments is not None and not left[reads]:
                moments.sums.pop(reads)
            w = torch.cat([weight(linear) for linear in together])
            grid = self._grid(w, grid)
            drift = None if moments is None else moments.drift(reads)
            aim = w if h is None or drift is None else asymmetric_target(w, h, drift)
            solution = SOLVERS[self.decision.recipe["solver"]](aim, h, grid)
            share = None if moments is None else moments.starved.get(reads)
            row = 0
            for linear in together:
                rows = row, row + linear.shape[0]
                yield _Part(linear, w[slice(*rows)], h, grid, solution.rows(*rows), share)
                row += linear.shape[0]

    def _together(self, step: BlockStep, parts: list[_Part]) -> tuple[list[_Part], list[float] | None]:
        """`parts` of a block, rounded one by one, trained on what the block gives; and the share of that which is lost
        before and after, None where there is nothing to train."""
        fixed: dict[str, Tensor] = {}
        starts: dict[str, Start] = {}
        for part in parts:
            rounded = part.grid.decode(part.solution.codes, part.solution.params)
            if isinstance(part.grid, FloatGrid) or part.h is None:
                fixed[part.linear.address] = rounded
            else:
                starts[part.linear.address] = Start(part.solution, part.grid, pull(part.w, rounded, part.h))
        if not starts:
            return parts, None
        trained = round_block(
            starts,
            lambda weights, batch: step.forward({**fixed, **weights}, batch),
            step.target,
            step.walk.sizes,
            None if self.metric is None else self.metric(step.index).to(self.decision.device),
            judges=range(step.walk.solving, len(step.walk.lighter)),
            seed=step.index,
        )
        found = [
            dataclasses.replace(part, solution=trained.solutions.get(part.linear.address, part.solution))
            for part in parts
        ]
        return found, [trained.before, trained.after]

    def _apart(self, linear: Linear, grid: Grid) -> str:
        """What else linears must have in common to be solved together: the tensor, where blocks of its rows count."""
        if grid.rows in (0, 1):
            return ""
        return next(piece.address for piece in self.decision.pieces if linear in piece.linears)

    def _pieces(self, index: int, solved: Mapping[str, Solved]) -> dict[str, Tensor]:
        """The tensors of block `index`: what was solved as it is stored, and everything else as it was."""
        parts, checkpoint = self.decision.anatomy, self.decision.checkpoint
        tensors: dict[str, Tensor] = {}
        taken = {linear.parameter for linear in parts.blocks[index] if linear.address in solved}
        for piece in self.decision.pieces:
            if piece.linears[0].parameter not in taken:
                continue
            mine = [solved.get(linear.address) for linear in piece.linears]
            if mine[0] is None:
                (linear,) = piece.linears
                tensors[f"{piece.address}.weight"] = linear.view(checkpoint.read(linear.parameter)).contiguous()
                continue
            grid = mine[0][1]
            whole = Solution.of_rows([one[0] for one in mine if one is not None])
            values = torch.cat([one[2] for one in mine if one is not None])
            tensors |= self._store(piece, whole, grid, values)
        for name in parts.block_tensors[index]:
            if name not in taken:
                tensors[name] = checkpoint.read(name)
        return tensors

    def finished(self, unit: str) -> bool:
        """Whether an earlier run finished `unit`."""
        return unit in self._done

    def solve_table(self, unit: str, linear: Linear, rest: list[str], moment: Tensor | None) -> Tensor | None:
        """Round embedding or head, some thousand rows at a time, or copy it where it has no grid; write `unit`.

        rest: other tensors copied into the same shard. moment: second moment `[in, in]` of what reads the table;
        without it rows are rounded to nearest. Returns the lighter weights, or None for a copy.
        """
        grid = self.decision.grids.get(linear.address)
        chosen = [linear] if grid is not None else []
        if unit in self._done:
            return self.weights(unit, chosen).get(linear.address)
        started = time.monotonic()
        tensors: dict[str, Tensor] = {}
        report: dict[str, Any] = {}
        if grid is None:
            rest = [linear.parameter, *rest]
        else:
            table = self.decision.checkpoint.read(linear.parameter)
            parts = [slice(start, start + _ROWS) for start in range(0, len(table), _ROWS)]
            if isinstance(grid, SmallFloatGrid):
                grid = grid.suited(table)
            kinds = [self._grid(table[rows].float(), grid) for rows in parts]
            grid = next((kind for kind in kinds if kind.scale_dtype == torch.float32), kinds[0])
            solutions, lost, size = [], 0.0, 0.0
            for rows in parts:
                w = table[rows].to(self.decision.device).float()
                if moment is not None:
                    own = SOLVERS[self.decision.recipe["solver"]](w, moment, grid)
                else:
                    own = nearest(w, None, grid)
                lost += (w - self._values(own, grid)).square().sum().item()
                size += w.square().sum().item()
                solutions.append(own)
            solution = Solution.of_rows(solutions)
            report[linear.address] = _line(linear, grid, solution, lost / size if size else 0.0)
            own_piece = Piece(linear.address, (linear,), linear.shape, linear.held)
            tensors |= self._store(own_piece, solution, grid, self._values(solution, grid))
        for name in rest:
            tensors[name] = self.decision.checkpoint.read(name)
        return self._finish(unit, tensors, report, chosen, started).get(linear.address)

    def copy_rest(self, unit: str, names: list[str]) -> None:
        """Write a shard of tensors that stay as they are."""
        if unit not in self._done:
            tensors = {name: self.decision.checkpoint.read(name) for name in names}
            self._finish(unit, tensors, {}, [], time.monotonic())

    def retune(self, tuned: Mapping[str, Tensor]) -> None:
        """Write every unit that holds any of `tuned` (by stored name) once more, with those in place of its own."""
        for unit in self.units():
            entry = self.journal.entries[unit]
            stored = read_header(self.file_of(unit))
            mine = {name: tuned[name] for name in stored if name in tuned}
            if not mine or entry.get("tuned"):
                continue
            made = self.journal.path.with_name("retuned.safetensors")
            write_tensors(made, {name: mine.get(name, read_tensor(info)) for name, info in stored.items()})
            told = {key: value for key, value in entry.items() if key not in ("unit", "file", "sha256", "bytes")}
            # the line first: a run that is killed in between finds the file that was there, and its own line
            self.journal.record(unit, self.file_of(unit), made, **{**told, "tuned": True})
            replace(made, self.file_of(unit))

    def weights(self, unit: str, linears: list[Linear]) -> dict[str, Tensor]:
        """The lighter weights of `linears`, float32, decoded from the file of `unit` as the target computes them."""
        stored = read_header(self.file_of(unit))
        wanted = {linear.address for linear in linears}
        weights = {}
        for piece in self.decision.pieces:
            if not any(linear.address in wanted for linear in piece.linears):
                continue
            grid = self.decision.grids[piece.linears[0].address]
            names = {part: f"{piece.address}.{part}" for part in (*PARTS, "weight")}
            parts = {p: read_tensor(stored[n]).to(self.decision.device) for p, n in names.items() if n in stored}
            whole = decode(parts, self.entry(grid), self.decision.dtype).float()
            row = 0
            for linear in piece.linears:
                weights[linear.address] = whole[row : row + linear.shape[0]]
                row += linear.shape[0]
        return {address: w for address, w in weights.items() if address in wanted}

    def _grid(self, w: Tensor, grid: Grid) -> Grid:
        if self.decision.dtype != torch.float32 or not isinstance(grid, GroupedGrid):
            return grid
        return dataclasses.replace(grid, scale_dtype=safe_scale_dtype(w, grid))

    def entry(self, grid: Grid) -> dict[str, Any]:
        """How a linear on `grid` is read."""
        return table_entry(grid, self.decision.storage.decode)

    def _values(self, solution: Solution, grid: Grid) -> Tensor:
        """The weights as readers of the container will compute them, as float32."""
        computed = {"scale": grid.scale_dtype, "float32": torch.float32}
        dtype = computed.get(self.entry(grid)["decode"], self.decision.dtype)
        return grid.decode(solution.codes, solution.params, dtype).to(self.decision.dtype).float()

    def _store(self, linear: Piece, solution: Solution, grid: Grid, values: Tensor) -> dict[str, Tensor]:
        """The stored tensors of `solution`, proved to decode to `values` (float32), which were solved."""
        parts = stored_parts(solution.codes.cpu(), {k: v.cpu() for k, v in solution.params.items()}, grid)
        again = decode(parts, self.entry(grid), self.decision.dtype)
        if not torch.isfinite(again).all():
            raise UsageError(
                f"{linear.address}: its weights as {grid.name} exceed what {self.decision.dtype} holds. Convert the "
                "original to bfloat16 or float32 first."
            )
        if not torch.equal(values.cpu(), again.float()):
            raise GateError(
                f"{linear.address}: what was stored is not what was solved. This is a defect of whet; please report it "
                f"with the scheme ({grid.name}) and the shape {linear.shape}."
            )
        return {f"{linear.address}.{part}": tensor for part, tensor in parts.items()}

    def _finish(
        self,
        unit: str,
        tensors: dict[str, Tensor],
        report: dict[str, Any],
        linears: list[Linear],
        started: float,
        **more: Any,
    ) -> dict[str, Tensor]:
        file = self.file_of(unit)
        write_tensors(file, tensors)
        seconds = time.monotonic() - started
        self.journal.record(unit, file, linears=report, seconds=seconds, **more)
        self._done.add(unit)
        self.stage.step(unit=unit, seconds=seconds)
        return self.weights(unit, linears)


def _line(linear: Linear, grid: Grid, solution: Solution, error: float) -> dict[str, Any]:
    line: dict[str, Any] = {"grid": grid.name, "shape": list(linear.shape), "role": linear.role, "error": error}
    if solution.notes:
        line["notes"] = solution.notes
    if grid.scale_dtype == torch.float32:
        line.setdefault("notes", []).append("scales kept in float32: float16 would lose them")
    return line


def _relative(w: Tensor, rounded: Tensor) -> float:
    size = w.square().sum().item()
    return (w - rounded).square().sum().item() / size if size else 0.0
