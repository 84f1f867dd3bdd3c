"""The visitor that rounds a block: its linears one by one, repaired, trained together, and written."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Linear
from whet.apply.cache_scales import calibrate_cache
from whet.apply.linear import Part, Weight, by_input
from whet.apply.ranges import calibrate
from whet.apply.repair import repaired
from whet.apply.shards import Shards, report_line, summed
from whet.errors import GateError
from whet.grids import Grid
from whet.quantize import Solution, Start, pull, round_block
from whet.walk import BlockStep, SecondMoments

Solved = tuple[Solution, Grid, Tensor]  # and the values that readers compute, in the model's type


class BlockRounding:
    """Rounds those linears of a block that have a grid; the others are copied with the rest of the block.

    metric: what an error of a block's output costs, `[hidden, hidden]` by its index, where that is known.
    """

    def __init__(self, shards: Shards, metric: Callable[[int], Tensor] | None = None) -> None:
        self.shards, self.job, self.metric = shards, shards.job, metric
        self.rules: dict[str, str] = {}  # of the block at hand, by address, which rule found the scale of its inputs
        self.scales: dict[str, Tensor] = {}

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Round a block on what reaches it; returns the lighter weights by address."""
        linears = self.job.chosen(step.linears)
        unit, started = f"block {step.index}", time.monotonic()
        if not linears:
            kept = calibrate_cache(self.shards, dataclasses.replace(step, linears=[]), {})
            self.without_text(step.index, [], kept)
            return {}
        self.rules = calibrate(self.shards, step, linears)
        if self.shards.finished(unit):
            calibrate_cache(self.shards, step, {})
            return self.shards.weights(unit, linears)
        self.scales = {x.address: step.walk.inputs.scales[x.address].cpu() for x in linears if x.address in self.rules}
        step = dataclasses.replace(step, linears=linears)
        moments = step.second_moments(drifts=self.job.asymmetric)
        parts: Iterable[Part] = self._parts(linears, step.weight, moments)
        lost = None
        if self.job.blockwise:
            parts, lost = self._together(step, list(parts))
        tensors, report, weights = self._stored(step.index, parts)
        del parts
        tensors |= calibrate_cache(self.shards, step, weights)
        del weights
        more = {} if lost is None else {"trained": lost}
        return self.shards.finish(unit, tensors, report, linears, started, **more)

    def without_text(self, index: int, linears: list[Linear], beside: Mapping[str, Tensor] | None = None) -> None:
        """Round block `index` without any inputs: the weights are read and nothing runs. beside: what else its file
        holds, by stored name."""
        if self.shards.finished(f"block {index}"):
            return

        def weight(linear: Linear) -> Tensor:
            return linear.view(self.job.checkpoint.read(linear.parameter).to(self.job.device).float())

        started = time.monotonic()
        tensors, report, _ = self._stored(index, self._parts(linears, weight, None))
        self.shards.finish(f"block {index}", {**tensors, **(beside or {})}, report, linears, started)

    def _parts(self, linears: list[Linear], weight: Weight, moments: SecondMoments | None) -> Iterator[Part]:
        for parts in by_input(self.job, linears, weight, moments):
            yield from repaired(self.job, parts) if self.job.repaired else parts

    def _together(self, step: BlockStep, parts: list[Part]) -> tuple[list[Part], list[float] | None]:
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
            grid = part.grid.coded
            if grid is None or part.h is None:
                fixed[part.linear.address] = rounded
            else:
                pulled = pull(part.w - part.added, rounded, part.h)
                starts[part.linear.address] = Start(part.solution, grid, pulled, part.mask)
        if not starts:
            return parts, None
        trained = round_block(
            starts,
            lambda weights, batch: step.forward(summed({**fixed, **weights}, added), batch),
            step.target,
            step.walk.sizes,
            None if self.metric is None else self.metric(step.index).to(self.job.device),
            judges=range(step.walk.solving, len(step.walk.lighter)),
            seed=step.index,
        )
        found = [
            dataclasses.replace(part, solution=trained.solutions.get(part.linear.address, part.solution))
            for part in parts
        ]
        return found, [trained.before, trained.after]

    def _stored(self, index: int, parts: Iterable[Part]) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
        """The tensors of block `index`, a line for each of `parts`, and the lighter weights by address where scales are
        still to be found by them; writes what repairs them."""
        solved: dict[Linear, Solved] = {}
        weights: dict[str, Tensor] = {}
        report: dict[str, Any] = {}
        factors: dict[str, tuple[Tensor, Tensor]] = {}
        for part in parts:
            address, rounded = part.linear.address, self.job.values(part.solution, part.grid)
            _check_zeros(part, rounded)
            line = report[address] = report_line(part.linear, part.grid, part.solution, part.error(rounded))
            if part.factors is not None:
                line |= {"error": part.error(rounded + part.added), "unrepaired": line["error"]}
                factors[address] = part.factors
            if address in self.rules:
                line["range"] = self.rules[address]
            if part.starved is not None:
                line["starved"] = part.starved
            if part.mask is not None and self.job.sparsity is not None:
                line["mask"] = self.job.sparsity.told(address, part.mask)
            solved[part.linear] = (part.solution, part.grid, rounded)
            if self.job.kv is not None:
                weights[address] = rounded.float() + part.added if part.factors is not None else rounded.float()
        if self.job.repaired:
            self.shards.keep_factors(index, factors)
        if self.job.storage.dense:
            names = self.job.anatomy.block_tensors[index]
            dense = self.shards.in_place(names, {linear: one[0].codes for linear, one in solved.items()})
            return dense, report, weights
        return self._tensors(index, solved), report, weights

    def _tensors(self, index: int, solved: Mapping[Linear, Solved]) -> dict[str, Tensor]:
        """The tensors of block `index`: what was solved as it is stored, and everything else as it was."""
        anatomy, checkpoint = self.job.anatomy, self.job.checkpoint
        tensors: dict[str, Tensor] = {}
        taken = {linear.parameter for linear in anatomy.blocks[index] if linear in solved}
        for piece in self.job.pieces:
            if piece.linears[0].parameter not in taken:
                continue
            found = [solved.get(linear) for linear in piece.linears]
            if found[0] is None:
                (linear,) = piece.linears
                tensors[f"{piece.address}.weight"] = linear.view(checkpoint.read(linear.parameter)).contiguous()
                continue
            grid = found[0][1]
            whole = Solution.of_rows([one[0] for one in found if one is not None])
            values = torch.cat([one[2] for one in found if one is not None])
            tensors |= self.shards.stored(piece, whole, grid, values)
            if (scale := self.scales.get(piece.linears[0].address)) is not None and grid.inputs is not None:
                tensors[f"{piece.address}.{grid.inputs.scale_part}"] = scale.clone()  # each in memory of its own
        for name in itertools.filterfalse(taken.__contains__, anatomy.block_tensors[index]):
            tensors[name] = checkpoint.read(name)
        return tensors


def _check_zeros(part: Part, rounded: Tensor) -> None:
    """Raises GateError unless `rounded`, the weights that readers compute, are exactly 0 where the mask is."""
    if part.mask is not None and rounded.masked_fill(part.mask, 0).any():
        raise GateError(
            "{linear}: a weight that is to be 0 is not. This is a defect of whet; please report it with the scheme "
            "({grid}) and the shape {shape}.",
            linear=part.linear.address,
            grid=part.grid.name,
            shape=part.linear.shape,
        )
