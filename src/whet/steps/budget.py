"""What a budget asks for, what a target offers it, and what a run to a budget takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from whet.anatomy import Linear
from whet.apply.job import Job, scale_dtype
from whet.budget import parse_size, tables, tensor_bytes, widths
from whet.budget.mix import Budget, Offers, must_be_possible
from whet.budget.offered import offered
from whet.budget.times import Costs, parse_time
from whet.checkpoint import Checkpoint, size_on_disk
from whet.errors import UsageError
from whet.grids import Grid
from whet.quantize import holds_zero
from whet.steps.estimate import estimate, scoring_memory, scoring_seconds
from whet.steps.options import Budget as Asked
from whet.steps.rounds import ALONE, QUALITY_ROUNDS
from whet.steps.score import unscored
from whet.targets import find_target
from whet.transforms.judge import judging_bytes
from whet.transforms.make import transformed_bytes

_TYPICAL = 4  # bits of a quality's mix, before there is one


def budget_of(checkpoint: Checkpoint, asked: Asked, costs: Costs | None = None) -> Budget | None:
    """The budget that was asked for, if any. costs: measured ones, where time counts."""
    if asked.fit is not None:
        whole = size_on_disk(checkpoint.path)["weights"]
        return Budget("bytes", float(parse_size(asked.fit, whole)), f"--fit {asked.fit}")
    if asked.bits is not None:
        return Budget("bits", float(asked.bits), f"--bits {asked.bits:g}")
    if asked.quality is not None:
        return Budget("quality", float(asked.quality), f"--quality {asked.quality:g}", costs)
    if costs is not None and asked.latency is not None:
        return Budget("time", parse_time(asked.latency), f"--latency {asked.latency}", costs)
    if costs is not None and asked.speedup is not None:
        return Budget("time", costs.sixteen / asked.speedup, f"--speedup {asked.speedup:g}", costs.beside_sixteen())
    return None


def check_budget(job: Job, budget: Budget) -> None:
    """Raises UsageError for a budget that nothing fits into, or that cannot be measured, before anything is scored."""
    if budget.kind == "quality" and not job.verify:
        raise UsageError(
            "{budget} is measured on text that is not calibrated on, and too little is left for that: give more text, "
            "or --eval FILE.",
            budget=budget.asked,
        )
    if budget.kind == "bytes" and budget.value >= size_on_disk(job.checkpoint.path)["weights"]:
        raise UsageError(
            "{budget} is no less than the original takes already: nothing has to be made lighter.", budget=budget.asked
        )
    check_possible(job, budget)


def check_possible(job: Job, budget: Budget) -> None:
    """Raises UsageError for a size that nothing fits into."""
    bare = unscored(job, offers(job))
    must_be_possible(Offers(bare, find_target(job.target), stock=False), bare, budget)


def offers(job: Job) -> Callable[[Linear], list[Grid]]:
    """What the target is offered, by linear; where weights are to stay 0, what holds that."""
    own = {linear.address for linear in tables(job.anatomy)}
    target, scales = find_target(job.target), scale_dtype(job.dtype)
    masked = {} if job.sparsity is None else job.sparsity.kept
    every_width = widths(job.anatomy)

    def fitting(linear: Linear) -> list[Grid]:
        found = offered(target, linear.shape, linear.address in own, scales, every_width)
        return [grid for grid in found if holds_zero(grid)] if linear.address in masked else found

    return fitting


def typical_grids(job: Job, budget: Budget) -> dict[str, Grid]:
    """For each linear of the blocks the scheme that the target offers with about the bits of the budget: what a
    transform is judged on before there is a plan."""
    every = sum(math.prod(info.shape) for info in job.checkpoint.stored.values())
    bits = {"bits": budget.value, "bytes": 8 * budget.value / every}.get(budget.kind, _TYPICAL)
    schemes = offers(job)
    return {
        linear.address: min(schemes(linear), key=lambda grid: abs(grid.bits - bits)) for linear in job.anatomy.linears()
    }


def budget_needs(job: Job, budget: Budget) -> dict[str, Any]:
    """What a budget's run will take: rounds lie side by side on the disk, two of a size at the most."""
    needs = estimate(job)
    rounds = QUALITY_ROUNDS if budget.kind == "quality" else 2
    before = tensor_bytes(job.anatomy, job.checkpoint.stored, {})
    whole = before["total"]
    if budget.kind == "bytes":
        after = int(budget.value)
    else:
        every = sum(math.prod(info.shape) for info in job.checkpoint.stored.values())
        after = int(every * (budget.value if budget.kind == "bits" else 8) / 8)
    after = min(after, whole)
    # of a size, the trial takes about as much as solving, and what parts lose by themselves a part of that; of a
    # quality, what is measured of a round half as much as making it
    times = 1 + 1.5 * rounds if budget.kind == "quality" else 2.4
    scoring = scoring_seconds(job, 0)
    return needs | {
        "bytes": {"before": before, "after": {"total": after}, "ratio": after / whole},
        "memory": max(needs["memory"], scoring_memory(job, ALONE)),
        "disk": rounds * after + 2**20 + transformed_bytes(job) + judging_bytes(job, after),
        "seconds": times * needs["seconds"] + scoring,
        "efforts": {word: times * seconds + scoring for word, seconds in needs["efforts"].items()},
    }
