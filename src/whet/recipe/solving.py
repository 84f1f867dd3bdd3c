"""The visitor that rounds a block, and the writing of each part's file as soon as it is finished."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Linear, Piece
from whet.checkpoint import adapter_tensors, read_factors, read_header, read_tensor, replace, write_tensors
from whet.checkpoint.modeling_whet import PARTS, decode
from whet.errors import GateError, UsageError
from whet.events import OnEvent, Stage
from whet.formats import stored_parts, table_entry
from whet.grids import FloatGrid, Grid, GroupedGrid, SmallFloatGrid, safe_scale_dtype
from whet.messages import Message, to_json
from whet.quantize import (
    SOLVERS,
    Solution,
    Start,
    asymmetric_target,
    eora,
    nearest,
    pull,
    round_block,
    second_moment_error,
)
from whet.recipe.decide import Decision
from whet.walk import BlockStep, Journal, SecondMoments

# Rows of an embedding or head solved at once: bounds memory for large vocabularies.
_ROWS = 8192
# Times that what is repaired is rounded anew beside its repair, at most. KL of a model of a million parameters with
# rank 8 after 0, 1 and 3 times: 0.0432, 0.0396, 0.0375 on 3 bits, 0.250, 0.234, 0.208 on 2 (0.197 after 8).
ROUNDS = 3

Solved = tuple[Solution, Grid, Tensor]  # and the values that readers compute, in the model's type


@dataclass(frozen=True)
class _Part:
    """A linear that was rounded: its original weights `[out, in]` and what was to be rounded instead of them (the same,
    but for asymmetric calibration), the second moment of its inputs if there is one, for an expert the share of the
    tokens it saw, if that is too few, and where it is repaired its rows of B `[out, r]` and A `[r, in]`, as stored."""

    linear: Linear
    w: Tensor
    aim: Tensor
    h: Tensor | None
    grid: Grid
    solution: Solution
    starved: float | None
    factors: tuple[Tensor, Tensor] | None = None

    @property
    def added(self) -> Tensor:
        """What its repair adds, `[out, in]`, float32; one 0 where there is none."""
        return self.w.new_zeros(()) if self.factors is None else self.factors[0].float() @ self.factors[1].float()


class Solver:
    """Rounds linears onto their grids, writes their file, and takes what an earlier run finished from the disk.

    Units are `embedding`, `block 0` …, `rest`; each is one shard. `weights` are decoded from what was stored, so the
    lighter stream runs on exactly what will be loaded.
    """

    def __init__(self, decision: Decision, out: Path, journal: Journal, on_event: OnEvent) -> None:
        self.decision, self.out, self.journal = decision, out, journal
        self.count = len(decision.anatomy.blocks) + 2
        self._done = {name for name in self.units() if journal.finished(name, out) and self._adapted(name)}
        self.stage = Stage(on_event, "compress", self.count, len(self._done))
        self.metric: Callable[[int], Tensor] | None = None  # what an error of a block's output costs, if that is known

    def units(self) -> list[str]:
        """Every unit in the order of the run."""
        return ["embedding", *(f"block {i}" for i in range(len(self.decision.anatomy.blocks))), "rest"]

    def file_of(self, unit: str) -> Path:
        """The shard that holds `unit`."""
        stem = "model" if self.decision.storage.container == "compressed-tensors" else "whet"
        return self.out / f"{stem}-{self.units().index(unit) + 1:05d}-of-{self.count:05d}.safetensors"

    def _adapted(self, unit: str) -> bool:
        """Whether an earlier run kept the adapter of `unit`, if it is to have one."""
        index = _block_of(unit)
        if index is None or not self.decision.repaired:
            return True
        return self.journal.finished(_adapter(index), self.journal.path.parent) is not None

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
        parts: Iterable[_Part] = self._one_by_one(linears, weight, moments)
        trained: dict[str, Any] = {}
        if step is not None and self.decision.blockwise:
            parts, lost = self._together(step, list(parts))
            trained = {} if lost is None else {"trained": lost}
        tensors, report = self._stored(index, parts)
        del parts
        return self._finish(f"block {index}", tensors, report, linears, started, **trained)

    def _stored(self, index: int, parts: Iterable[_Part]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors of block `index` and a line for each of `parts`; writes what repairs them."""
        solved: dict[str, Solved] = {}
        report: dict[str, Any] = {}
        factors: dict[str, tuple[Tensor, Tensor]] = {}
        for part in parts:
            linear, rounded = part.linear, self._values(part.solution, part.grid)
            line = report[linear.address] = _line(linear, part.grid, part.solution, _error(part, rounded))
            if part.factors is not None:
                line |= {"error": _error(part, rounded + part.added), "unrepaired": line["error"]}
                factors[linear.address] = part.factors
            if part.starved is not None:
                line["starved"] = part.starved
            solved[linear.address] = (part.solution, part.grid, rounded)
        if self.decision.repaired:
            self._keep_factors(index, factors)
        return self._pieces(index, solved), report

    def _one_by_one(
        self, linears: list[Linear], weight: Callable[[Linear], Tensor], moments: SecondMoments | None
    ) -> Iterator[_Part]:
        """Each linear rounded by itself; those that share an input and a grid are solved in one."""
        by_input: dict[str, dict[tuple[Grid, str], list[Linear]]] = {}
        for linear in linears:
            by_input.setdefault(linear.reads, {}).setdefault(self._kind(linear), []).append(linear)
        for reads, kinds in by_input.items():
            h, drift = (None, None) if moments is None else moments.take(reads)
            share = None if moments is None else moments.starved.get(reads)
            parts: list[_Part] = []
            for (grid, _), together in kinds.items():
                own = [weight(linear) for linear in together]
                aims = own
                if h is not None and drift is not None:
                    whole = asymmetric_target(torch.cat(own), h, drift)
                    aims = list(whole.split([len(w) for w in own]))
                grid, solutions = self._in_one(aims, h, grid)
                parts += [
                    _Part(linear, w, aim, h, grid, solution, share)
                    for linear, w, aim, solution in zip(together, own, aims, solutions, strict=True)
                ]
            yield from self._repaired(parts) if self.decision.repaired else parts

    def _in_one(self, weights: list[Tensor], h: Tensor | None, grid: Grid) -> tuple[Grid, list[Solution]]:
        """Weights of one input, rounded together; and the grid with the type of its scales."""
        w = torch.cat(weights) if len(weights) > 1 else weights[0]
        grid = self._grid(w, grid)
        solution = SOLVERS[self.decision.recipe["solver"]](w, h, grid)
        ends = list(itertools.accumulate(map(len, weights)))
        return grid, [solution.rows(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def _repaired(self, parts: list[_Part]) -> list[_Part]:
        """`parts`, which are all that read one input, each with its repair, and rounded anew to what that leaves for as
        long as both together lose less."""
        best = self._with_factors(parts)
        for _ in range(ROUNDS if any(part.factors is not None for part in best) else 0):
            kinds: dict[tuple[Grid, str], list[_Part]] = {}
            for part in best:
                kinds.setdefault(self._kind(part.linear), []).append(part)
            again: list[_Part] = []
            for (grid, _), together in kinds.items():
                grid, solutions = self._in_one([part.aim - part.added for part in together], together[0].h, grid)
                again += [
                    dataclasses.replace(part, grid=grid, solution=solution)
                    for part, solution in zip(together, solutions, strict=True)
                ]
            again = self._with_factors(again)
            if not sum(map(self._lost, again)) < sum(map(self._lost, best)):
                break
            best = again
        return best

    def _with_factors(self, parts: list[_Part]) -> list[_Part]:
        """`parts` with what repairs their errors best, module by module."""
        by_address = {part.linear.address: part for part in parts}
        for module in self.decision.repaired:
            mine = [by_address[x.address] for x in module.linears if x.address in by_address]
            if not mine:
                continue
            errors = [p.aim - self._values(p.solution, p.grid) for p in mine]
            rank = min(self.decision.recipe["repair"], *module.shape)
            b, a = eora(torch.cat(errors), mine[0].h, rank, self.decision.adapter_dtype)
            for part, rows in zip(mine, b.split([len(e) for e in errors]), strict=True):
                by_address[part.linear.address] = dataclasses.replace(part, factors=(rows, a))
        return list(by_address.values())

    def _lost(self, part: _Part) -> float:
        """tr(R h Rᵀ) of what is left of a part's error R beside its repair."""
        error = part.aim - self._values(part.solution, part.grid) - part.added
        return (error if part.h is None else error @ part.h).mul(error).sum().item()

    def _together(self, step: BlockStep, parts: list[_Part]) -> tuple[list[_Part], list[float] | None]:
        """`parts` of a block, rounded one by one, trained on what the block gives; and the share of that which is lost
        before and after, None where there is nothing to train.

        Repairs are in place while codes are trained and stay as they are. (On 3 bits with rank 8, KL was 0.0270 so,
        0.0275 with a repair of what was trained in their place, and 0.0326 where repairs came only afterwards.)
        """
        fixed: dict[str, Tensor] = {}
        starts: dict[str, Start] = {}
        added = {part.linear.address: part.added for part in parts if part.factors is not None}
        for part in parts:
            rounded = part.grid.decode(part.solution.codes, part.solution.params)
            if isinstance(part.grid, FloatGrid) or part.h is None:
                fixed[part.linear.address] = rounded
            else:
                starts[part.linear.address] = Start(
                    part.solution, part.grid, pull(part.w - part.added, rounded, part.h)
                )
        if not starts:
            return parts, None
        trained = round_block(
            starts,
            lambda weights, batch: step.forward(summed({**fixed, **weights}, added), batch),
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

    def _kind(self, linear: Linear) -> tuple[Grid, str]:
        """What linears that read one input must have in common to be solved together: the grid, and where blocks of
        its rows count, the tensor."""
        grid = self.decision.grids[linear.address]
        if grid.rows in (0, 1):
            return grid, ""
        return grid, next(piece.address for piece in self.decision.pieces if linear in piece.linears)

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

    def _keep_factors(self, index: int, factors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Write the adapter of block `index` into the run's folder."""
        tensors: dict[str, Tensor] = {}
        for module in self.decision.repaired:
            mine = [factors.get(linear.address) for linear in module.linears]
            a = next((own[1] for own in mine if own is not None), None)
            if a is None:
                continue
            rows = [
                a.new_zeros(linear.shape[0], len(a)) if own is None else own[0]  # what stays has no error
                for linear, own in zip(module.linears, mine, strict=True)
            ]
            tensors |= adapter_tensors(module.name, torch.cat(rows).cpu(), a.cpu())
        write_tensors(self.adapter_of(index), tensors)
        self.journal.record(_adapter(index), self.adapter_of(index), linears={}, seconds=0.0)

    def adapter_of(self, index: int) -> Path:
        """The file in the run's folder that holds the adapter of block `index`."""
        return self.journal.path.with_name(f"adapter-{index:05d}.safetensors")

    def factors(self, index: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Module -> (B `[out, r]`, A `[r, in]`) of what repairs block `index`, as stored."""
        return read_factors(self.adapter_of(index)) if self.decision.repaired else {}

    def added(self, index: int) -> dict[str, Tensor]:
        """What repairs add to the linears of block `index`, `[out, in]` by address, float32."""
        factors = self.factors(index)
        found: dict[str, Tensor] = {}
        for module in self.decision.repaired:
            if module.name in factors:
                b, a = (one.to(self.decision.device).float() for one in factors[module.name])
                rows = (b @ a).split([linear.shape[0] for linear in module.linears])
                found |= {linear.address: part for linear, part in zip(module.linears, rows, strict=True)}
        return found

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
        if not linears:
            return {}
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
        index = _block_of(unit)
        added = {} if index is None else self.added(index)
        return summed({address: w for address, w in weights.items() if address in wanted}, added)

    def _grid(self, w: Tensor, grid: Grid) -> Grid:
        if self.decision.dtype != torch.float32 or not isinstance(grid, GroupedGrid):
            return grid
        return dataclasses.replace(grid, scale_dtype=safe_scale_dtype(w, grid))

    def entry(self, grid: Grid) -> dict[str, Any]:
        """How a linear on `grid` is read."""
        return table_entry(grid, self.decision.storage.decode)

    def _values(self, solution: Solution, grid: Grid) -> Tensor:
        """The weights as readers of the container will compute them, in the model's type."""
        computed = {"scale": grid.scale_dtype, "float32": torch.float32}
        dtype = computed.get(self.entry(grid)["decode"], self.decision.dtype)
        return grid.decode(solution.codes, solution.params, dtype).to(self.decision.dtype)

    def _store(self, linear: Piece, solution: Solution, grid: Grid, values: Tensor) -> dict[str, Tensor]:
        """The stored tensors of `solution`, proved to decode to `values`, which were solved."""
        parts = stored_parts(solution.codes.cpu(), {k: v.cpu() for k, v in solution.params.items()}, grid)
        again = decode(parts, self.entry(grid), self.decision.dtype)
        if not torch.isfinite(again).all():
            raise UsageError(
                "{address}: its weights as {grid} exceed what {dtype} holds. Convert the original to bfloat16 or "
                "float32 first.",
                address=linear.address,
                grid=grid.name,
                dtype=self.decision.dtype,
            )
        if not torch.equal(values.cpu(), again):
            raise GateError(
                "{address}: what was stored is not what was solved. This is a defect of whet; please report it with "
                "the scheme ({grid}) and the shape {shape}.",
                address=linear.address,
                grid=grid.name,
                shape=linear.shape,
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
    notes = list(solution.notes)
    if grid.scale_dtype == torch.float32:
        notes.append(Message("scales kept in float32: float16 would lose them"))
    return {**line, "notes": to_json(notes)} if notes else line


def summed(weights: Mapping[str, Tensor], added: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by address with what repairs add to them."""
    return {address: w + added[address] if address in added else w for address, w in weights.items()}


def _block_of(unit: str) -> int | None:
    """The number of the block that a unit is; None for embedding and rest."""
    kind, _, number = unit.partition(" ")
    return int(number) if kind == "block" else None


def _adapter(index: int) -> str:
    """What the adapter of block `index` is called in the journal."""
    return f"adapter {index}"


def _error(part: _Part, rounded: Tensor) -> float:
    """The share of a linear's output that `rounded` loses; without a second moment that of its weights."""
    if part.h is not None:
        return second_moment_error(part.w, rounded, part.h)
    size = part.w.square().sum().item()
    return (part.w - rounded).square().sum().item() / size if size else 0.0
