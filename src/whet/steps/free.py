"""The part of the step `prune` in which blocks may differ in shape: `--shapes free`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from whet.anatomy import Kept, block_cuts, unit_counts
from whet.anatomy.surgery import READERS
from whet.apply.cut import Cutter, Cutting
from whet.apply.job import Job
from whet.apply.sweep import Sweep
from whet.budget import tensor_bytes
from whet.errors import UsageError
from whet.events import Stage
from whet.pruning.allocation import ROUNDS, Allocation, Amounts, by_unit, layers_left
from whet.steps.prune_shapes import TRIAL_TOKENS, WRITE, built, memory_of, numbers, weights_of
from whet.steps.prune_trials import Trials, agreement_at_end, first_of_all
from whet.steps.rates import multiplications_per_second

SWEEP_TOKENS = 2048  # on which every move is measured
_MOVES = 6  # of a block, about
_HUNDRED = 100


def allocation_of(job: Job) -> Allocation:
    """The blocks of a job's model, of which nothing went yet."""
    assert job.removal is not None
    parts, config, shapes = job.anatomy, built(job), job.checkpoint.shapes
    counts = unit_counts(parts, config)
    channels, heads = (count for unit in READERS if isinstance(count := counts[unit], int))
    every = tuple(range(len(parts.blocks)))

    @functools.cache
    def size(index: int, mine: Amounts) -> int:
        if not any(mine):
            return 0
        kept = Kept(every, {index: tuple(range(mine[0]))}, {index: tuple(range(mine[1]))})
        return numbers(block_cuts(parts, config, shapes, kept, index), shapes)

    said = config.get("layer_types")
    kinds = said if isinstance(said, list) and len(said) == len(every) else [""] * len(every)
    whole = [(channels, heads)] * len(every)
    step = weights_of(job).step
    return Allocation(whole, job.removal.units, step, size, kinds)


def check_free(job: Job) -> None:
    """Raises UsageError where the share is less than anything has that may go, or more than all of it."""
    assert job.removal is not None
    allocation, share = allocation_of(job), job.removal.share
    least, most = allocation.finest / allocation.total, allocation.most / allocation.total
    if not least / 2 <= share <= most:
        raise UsageError(
            "{folder}: {share:.1%} of the blocks' parameters cannot go. Of {units} the least that can go is {least:.1%}"
            ", and the most {most:.1%}.",
            folder=job.checkpoint.path,
            share=float(share),
            units=", ".join(job.removal.units),
            least=least,
            most=most,
        )


def free_needs(job: Job) -> dict[str, Any]:
    """What a run takes, as `needs_of` says it; rough."""
    assert job.removal is not None
    parts, checkpoint, weights = job.anatomy, job.checkpoint, weights_of(job)
    before = tensor_bytes(parts, checkpoint.stored, {})
    less = int(float(job.removal.share) * weights.total * checkpoint.dtype.itemsize)
    after = {**before, "linears": before["linears"] - less, "total": before["total"] - less}
    tokens, rate = job.tokens + sum(map(len, job.verify)), multiplications_per_second()
    walk, blocks = 2 * weights.total / rate, weights.whole.layers
    inverses = 12 * parts.widest**3 * blocks / rate
    swept = min(tokens, SWEEP_TOKENS)
    outputs = 2 * parts.embedding.shape[0] * parts.embedding.shape[1] / rate
    stages = {
        "sort": 2 * walk * job.tokens + 2 * inverses,
        "shape": ROUNDS * _MOVES * blocks * swept * (walk / 2 + outputs) + 2 * ROUNDS * inverses,
        "prune": 6 * walk * tokens + WRITE * weights.total + inverses,
        "finish": 0.5 + 4e-9 * before["total"],
    }
    streams = 4 * parts.embedding.shape[1] * swept * (_MOVES * blocks + 2)
    return {
        "bytes": {"before": before, "after": after, "ratio": after["total"] / before["total"]},
        "memory": memory_of(job) + streams,
        "disk": int(after["total"] * 1.02) + 2**20 + 8 * parts.embedding.shape[1] * tokens,
        "seconds": sum(stages.values()),
        "stages": stages,
    }


class Free(Trials):
    """Takes of every block what costs least, one after another."""

    def _found(self) -> dict[str, Any]:
        allocation = allocation_of(self.job)
        orders = self.sorted_units([unit for unit in READERS if unit in self.removal.units])
        some = first_of_all([*self.judge, *self.solve], SWEEP_TOKENS)
        sweep = Sweep(
            self.checkpoint,
            self.parts,
            some,
            self.numbered,
            orders,
            self.removal.repair,
            self.job.device,
            self.folder,
        )
        stage = Stage(self.tell, "shape", _HUNDRED)
        goal = round(self.removal.share * allocation.total)
        allocation.take(goal, sweep.losses, lambda share: stage.reach(int(_HUNDRED * share)))
        stage.reach(_HUNDRED)
        mine = by_unit(allocation.amounts, allocation.whole)
        found: dict[str, Any] = {
            "amounts": {
                "layers": len(layers_left(allocation.amounts)),
                **{unit: {str(index): number for index, number in of.items()} for unit, of in mine.items() if of},
            },
            "layers": list(layers_left(allocation.amounts)),
            "experts": {},
            "removed": allocation.gone / allocation.total,
            "trials": [{"removed": one.gone, "kl": one.loss} for one in allocation.rounds],
            "repair": self.removal.repair,
        }
        if self.judge and self.removal.repair:
            fitted, plain = (self._loss(found, repair) for repair in (True, False))
            found |= {"repair": fitted <= plain, "kl": {"repair": fitted, "no repair": plain}}
        return found

    def planned(self, shape: Mapping[str, Any]) -> Cutting:
        """What goes by a shape that was found, block by block."""
        amounts = {unit: {int(i): number for i, number in shape["amounts"].get(unit, {}).items()} for unit in READERS}
        return self.cutting(shape["layers"], amounts, shape["repair"])

    def _loss(self, shape: Mapping[str, Any], repair: bool) -> float:
        """KL to the original on some of the verifying text."""
        solve, judge = first_of_all(self.solve, TRIAL_TOKENS), first_of_all(self.judge, TRIAL_TOKENS // 4)
        cutter = Cutter(self.planned({**shape, "repair": repair}), len(solve))
        return agreement_at_end(self.walked(cutter, solve, judge), judge, len(solve), self.job)["kl"]
