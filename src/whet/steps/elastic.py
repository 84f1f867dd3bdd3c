"""The part of the step `prune` that takes nothing: a folder of the same function, sorted so that smaller models can be
cut from it in seconds (`whet slice`).

Channels and heads are put in order of what they are worth, which changes nothing (an exact permutation), and for every
size the shape is sought that differs least from the original without a weight moved: the first channels and heads of
every block, and the blocks that stay when others go in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from torch import Tensor

from whet.apply.cut import Cutter
from whet.apply.job import Job
from whet.budget import tensor_bytes
from whet.errors import UsageError
from whet.events import Stage
from whet.messages import Message
from whet.pruning import Amounts, shapes
from whet.report.numbers import written_size
from whet.steps.prune_shapes import DEPTH_TOKENS, TRIAL_TOKENS, TRIALS, WRITE, fault, memory_of, weights_of, whole_of
from whet.steps.prune_trials import Orders, Trials, agreement_at_end, climb, first_of_all
from whet.steps.rates import multiplications_per_second

SORTED = ("channels", "heads")


def shapes_by_size(job: Job) -> dict[Fraction, list[Amounts]]:
    """By size the shapes that come to it, of which transformers builds models of the family; of a size without any,
    nothing. Raises UsageError where no size has one."""
    assert job.removal is not None
    weights = weights_of(job)
    found = {}
    faults: dict[Amounts, Message | None] = {}
    for size in job.removal.sizes:
        offered = shapes(weights, 1 - size, job.removal.units)
        faults |= {one: fault(job, one) for one in offered if one not in faults}
        if possible := [one for one in offered if faults[one] is None]:
            found[size] = possible
    if not found:
        raise UsageError(
            "{folder}: no shape with fewer {units} comes to {sizes} of the blocks' parameters. Give other sizes, or "
            "other units.",
            folder=job.checkpoint.path,
            units=", ".join(job.removal.units),
            sizes=", ".join(written_size(float(size)) for size in job.removal.sizes),
        )
    return found


def elastic_needs(job: Job) -> dict[str, Any]:
    """What a run takes, as `needs_of` says it; rough."""
    assert job.removal is not None
    weights, before = weights_of(job), tensor_bytes(job.anatomy, job.checkpoint.stored, {})
    by_size = shapes_by_size(job)
    solve, judge = job.tokens, sum(map(len, job.verify))
    walk = 2 * weights.total / multiplications_per_second()
    deepest = max(weights.whole.layers - one.layers for offered in by_size.values() for one in offered)
    stages = {}
    if deepest:
        stages["depth"] = walk * min(solve + judge, DEPTH_TOKENS) * deepest * weights.whole.layers / 2
    inverses = 24 * job.anatomy.widest**3 * weights.whole.layers / multiplications_per_second()
    stages["sort"] = 2 * walk * solve + inverses
    tries = sum(min(TRIALS, len(offered)) for offered in by_size.values())
    stages["shape"] = 2 * walk * (min(judge, TRIAL_TOKENS // 4) * tries + judge * len(by_size))
    if job.removal.repair:
        stages["shape"] += 6 * walk * (min(solve, TRIAL_TOKENS) + judge) * len(by_size)
    stages["prune"] = WRITE * weights.total
    stages["finish"] = 0.5 + 4e-9 * before["total"]
    return {
        "bytes": {"before": before, "after": before, "ratio": 1.0},
        "memory": memory_of(job),
        "disk": int(before["total"] * 1.02) + 2**20 + 8 * job.anatomy.embedding.shape[1] * (solve + judge),
        "seconds": sum(stages.values()),
        "stages": stages,
    }


class Elastic(Trials):
    """Sorts the units of a job's model, and finds shapes for its sizes."""

    def _found(self) -> dict[str, Any]:
        whole, by_size = whole_of(self.job), shapes_by_size(self.job)
        every = [one for offered in by_size.values() for one in offered]
        deepest = max(whole.layers - one.layers for one in every)
        gone = self._order(deepest) if deepest else []
        fewer = [unit for unit in SORTED if any(getattr(one, unit) < getattr(whole, unit) for one in every)]
        orders = self.sorted_units(fewer)
        tries = sum(min(TRIALS, len(offered)) for offered in by_size.values())
        stage = Stage(self.tell, "shape", tries + len(by_size))
        sizes = []
        for size, offered in by_size.items():
            sizes.append(self._smaller(size, offered, gone, orders, stage))
            stage.reach(sum(min(TRIALS, len(by_size[done])) + 1 for done in list(by_size)[: len(sizes)]))
        return {
            "amounts": asdict(whole),
            "layers": list(range(whole.layers)),
            "experts": {},
            "removed": 0.0,
            "trials": [],
            "orders": {unit: {str(index): mine for index, mine in found.items()} for unit, found in orders.items()},
            "elastic": {
                "order": gone,
                "sorted": {unit: self.removal.importance[unit] for unit in fewer},
                "sizes": sizes,
            },
        }

    def _smaller(
        self, size: Fraction, offered: Sequence[Amounts], gone: Sequence[int], orders: Orders, stage: Stage
    ) -> dict[str, Any]:
        """The best of the shapes of one size, and what it loses."""
        few = first_of_all(self.judge, TRIAL_TOKENS // 4)

        def loss(one: Amounts) -> float:
            kl = self._measured(self.left(gone, one), one, orders, few)["kl"]
            stage.step()
            return kl

        tried = climb(offered, loss)
        best = min(tried, key=lambda one: tried[one])
        left = self.left(gone, best)
        repaired = self._measured(left, best, orders, self.judge, repair=True)["kl"] if self.removal.repair else None
        return {
            "size": float(size),
            "share": 1 - self.removed(left, best, weights_of(self.job).total),
            "amounts": asdict(best),
            "layers": list(left),
            **self._measured(left, best, orders, self.judge),
            "kl_repaired": repaired,
            "trials": [{**asdict(one), "kl": kl} for one, kl in tried.items()],
        }

    def _measured(
        self, left: Sequence[int], amounts: Amounts, orders: Orders, judge: Sequence[Tensor], repair: bool = False
    ) -> dict[str, float]:
        """`kl` and `top1` of a shape, with what is left as it was or fitted anew."""
        fewer = {unit: mine for unit, mine in orders.items() if getattr(amounts, unit) < self.counts[unit]}
        cutting = self.cutting(left, self.alike(amounts), repair, orders=fewer)
        solve = first_of_all(self.solve, TRIAL_TOKENS) if repair else []
        walk = self.walked(Cutter(cutting, len(solve)), solve, judge)
        return agreement_at_end(walk, judge, len(solve), self.job)

    def proving(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """One batch to prove the sorted model by: nothing is calibrated any more, and it loses nothing."""
        return self.solve[:1], []
