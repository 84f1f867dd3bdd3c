"""Embedding and head: rounded some thousand rows at a time, or copied."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Linear, Piece
from whet.apply.linear import with_safe_scales
from whet.apply.shards import Shards, report_line
from whet.quantize import Solution, nearest

# Rows of an embedding or head solved at once: bounds memory for large vocabularies.
_ROWS = 8192


def round_table(shards: Shards, unit: str, linear: Linear, rest: list[str], moment: Tensor | None) -> Tensor | None:
    """Round embedding or head, or copy it where it has no grid; write `unit`.

    rest: other tensors copied into the same shard. moment: second moment `[in, in]` of what reads the table; without
    it rows are rounded to nearest. Returns the lighter weights, or None for a copy.
    """
    job = shards.job
    chosen = job.chosen([linear])
    if shards.finished(unit):
        return shards.weights(unit, chosen).get(linear.address)
    if not chosen:
        shards.copy(unit, [linear.parameter, *rest])
        return None
    started = time.monotonic()
    grid = job.grids[linear.address]
    table = job.checkpoint.read(linear.parameter)
    parts = [slice(start, start + _ROWS) for start in range(0, len(table), _ROWS)]
    grid = grid.suited(table)
    kinds = [with_safe_scales(job, table[rows].float(), grid) for rows in parts]
    grid = next((kind for kind in kinds if kind.scale_dtype == torch.float32), kinds[0])
    solutions, lost, size = [], 0.0, 0.0
    for rows in parts:
        w = table[rows].to(job.device).float()
        own = nearest(w, None, grid) if moment is None else job.effort.solve(w, moment, grid)
        lost += (w - job.values(own, grid)).square().sum().item()
        size += w.square().sum().item()
        solutions.append(own)
    solution = Solution.of_rows(solutions)
    report: dict[str, Any] = {linear.address: report_line(linear, grid, solution, lost / size if size else 0.0)}
    piece = Piece(linear.address, (linear,), linear.shape, linear.held)
    tensors = shards.stored(piece, solution, grid, job.values(solution, grid))
    tensors |= {name: job.checkpoint.read(name) for name in rest}
    return shards.finish(unit, tensors, report, chosen, started).get(linear.address)
