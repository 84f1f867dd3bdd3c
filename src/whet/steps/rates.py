"""Short measurements of this machine on the model itself, from which the time of a run is estimated.

What a token takes depends on widths, heads and windows, and for small models on everything but products; what a
linear takes, on its shape. So the first block is run on a few windows, and one linear of each shape is rounded.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from whet.anatomy import Linear
from whet.apply.job import BATCH_TOKENS, Job
from whet.quantize import ROUNDINGS, Rounding
from whet.walk import BlockStep, Walk

# Multiplications of what is tried, at the most, and weights of a block that is read for it: below a second together.
_TRIED, _READ = 1e10, 1 << 27
# A run's batches are not in the caches, as one that is tried several times is: what that is worth, measured.
_COLD = 1.15
_ROWS, _COLUMNS = 256, 512  # of a linear that is rounded, at the most


@dataclass(frozen=True)
class Rates:
    """multiply: multiplications and additions a second, of a large product. heard, passed: seconds a token takes
    through all blocks, with the second moments of what their linears read, and without. rounding: seconds that all
    linears take one by one, by the name of a rounding; each is tried when it is first asked for."""

    multiply: float
    heard: float
    passed: float
    rounding: Callable[[str], float]


def measured_rates(job: Job) -> Rates:
    """The rates of a job on this machine; of a model whose first block cannot be run by itself, or not at once, they
    follow from those of a large product."""
    linears = job.anatomy.linears()
    weights = sum(math.prod(linear.shape) for linear in linears)
    multiply = multiplications_per_second()
    passed = 2.0 * weights / multiply
    heard = passed + sum(2.0 * linear.shape[1] ** 2 for linear in job.chosen(linears)) / 2 / multiply
    rounding = functools.cache(lambda name: _rounding_seconds(job, ROUNDINGS[name]))
    first = job.anatomy.blocks[0]
    size = sum(math.prod(linear.shape) for linear in first)
    if not job.solve or job.device != "cpu" or job.anatomy.task != "causal" or not job.chosen(first) or size > _READ:
        return Rates(multiply, heard, passed, rounding)
    share = weights / size
    heard, passed = _through_first(job, int(max(64, min(BATCH_TOKENS, _TRIED / size))))
    return Rates(multiply, share * heard, share * passed, rounding)


def _rounding_seconds(job: Job, rounding: Rounding) -> float:
    """About how long rounding all linears takes: one of each shape and grid is, a part of it where it is large."""
    chosen = job.chosen(job.anatomy.linears())
    counts: dict[tuple[tuple[int, int], str], list[Linear]] = {}
    for linear in chosen:
        counts.setdefault((linear.shape, job.grids[linear.address].name), []).append(linear)
    found, chance = 0.0, torch.Generator().manual_seed(0)  # whatever else draws is to draw the same as without
    for (shape, _), alike in counts.items():
        rows, columns = min(shape[0], _ROWS), min(shape[1], _COLUMNS)
        w, x = (torch.randn(n, columns, generator=chance) for n in (rows, 2 * columns))
        grid = job.grids[alike[0].address]
        h = x.T @ x / len(x) if rounding.text else None
        seconds = fastest(lambda w=w, h=h, grid=grid: rounding.solve(w, h, grid, None), 2)  # type: ignore[misc]
        found += len(alike) * seconds * (shape[0] / rows) * (shape[1] / columns) ** (2 if rounding.text else 1)
    return found


def multiplications_per_second() -> float:
    """Of a large product."""
    a = torch.ones(512, 512)
    return 2 * 512**3 / max(fastest(lambda: a @ a, 6), 1e-6)


def fastest(work: Callable[[], object], tries: int) -> float:
    """Seconds of the fastest of a few tries, of the processor: what else the machine does is no part of them."""
    seconds = []
    for _ in range(tries):
        started = time.thread_time()
        work()
        seconds.append(time.thread_time() - started)
    return min(seconds)


def usual(work: Callable[[], object], tries: int) -> float:
    """Seconds of the processor that work takes on the average, once it was done."""
    work()
    started = time.thread_time()
    for _ in range(tries):
        work()
    return (time.thread_time() - started) / tries


def _through_first(job: Job, tokens: int) -> tuple[float, float]:
    """Seconds a token takes through the first block, with second moments and without, on about so many tokens."""
    window = job.solve[0][:tokens]
    alike = [w for w in job.solve if len(w) >= len(window)][: max(1, tokens // len(window))]
    batch = torch.stack([w[: len(window)] for w in alike])
    table = job.checkpoint.read(job.anatomy.embedding.parameter)
    with torch.no_grad():
        walk = Walk(job.checkpoint, job.anatomy, [batch], [], table, table, job.device, None, job.compute)
        linears = job.chosen(job.anatomy.blocks[0])
        module = walk.skeleton.load_block(0)
        step = BlockStep(0, job.anatomy.block_prefix(0), module, linears, walk)
        heard = usual(step.second_moments, 3)
        passed = usual(lambda: walk.run(step, walk.lighter[0], 0), 3)
        walk.skeleton.free_block(0)
    return _COLD * heard / batch.numel(), _COLD * passed / batch.numel()
