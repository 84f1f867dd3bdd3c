"""Which shape a model is pruned to, and which blocks and experts stay: found by trying."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Kept, block_cuts, unit_counts
from whet.apply.agreement import agreement
from whet.apply.cut import Cutter, Cutting
from whet.apply.depth import blocks_to_take
from whet.apply.experts import Routing
from whet.apply.job import BATCH_TOKENS, Job
from whet.apply.sort import Sorter
from whet.checkpoint import write_json
from whet.events import OnEvent, Stage
from whet.pruning import Amounts
from whet.steps.prune_shapes import (
    DEPTH_TOKENS,
    TRIAL_TOKENS,
    TRIALS,
    built,
    example,
    numbers,
    weights_of,
)
from whet.text import batches
from whet.walk import Walk

SHAPE = "shape.json"
Orders = Mapping[str, Mapping[int, Sequence[int]]]


class Trials:
    """Tries shapes of a job's model, in the folder of its run."""

    def __init__(self, job: Job, folder: Path, tell: OnEvent) -> None:
        assert job.removal is not None
        self.job, self.folder, self.tell, self.removal = job, folder, tell, job.removal
        self.parts, self.checkpoint, self.built = job.anatomy, job.checkpoint, built(job)
        self.counts = unit_counts(self.parts, self.built)
        self.solve = batches(job.solve, BATCH_TOKENS) or [torch.arange(16)[None] % job.anatomy.embedding.shape[0]]
        self.judge = batches(job.verify, BATCH_TOKENS)
        self.table = self.checkpoint.read(self.parts.embedding.parameter)

    def shape(self) -> dict[str, Any]:
        """Which blocks stay, how many of the other units, which experts, and what was tried to find out."""
        file = self.folder / SHAPE
        if not file.is_file():
            write_json(file, self._found())
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def _found(self) -> dict[str, Any]:
        weights = weights_of(self.job)
        offered = self.removal.offered
        experts = self._experts(offered)
        deepest = max(weights.whole.layers - one.layers for one in offered)
        gone = self._order(deepest) if deepest else []
        judged = self.job.anatomy.task == "causal" and bool(self.judge) and "experts" not in self.removal.units
        tried = self._climb(offered, gone, experts) if judged and len(offered) > 1 else {}
        best = min(tried, key=lambda one: tried[one]) if tried else offered[0]
        left = self.left(gone, best)
        found = {
            "amounts": asdict(best),
            "layers": list(left),
            "order": gone,
            "experts": {str(index): list(routed[best.experts]) for index, routed in experts.items()},
            "removed": self.removed(left, best, weights.total),
            "trials": [{**asdict(one), "kl": kl} for one, kl in tried.items()],
            "repair": self.removal.repair,
        }
        if judged and self.removal.repair:
            fitted = tried[best] if best in tried else self._trial(best, gone, experts)
            plain = self._trial(best, gone, experts, repair=False)
            found |= {"repair": fitted <= plain, "kl": {"repair": fitted, "no repair": plain}}
        return found

    def removed(self, left: Sequence[int], amounts: Amounts, total: int) -> float:
        """The share of the blocks' parameters that goes, exactly."""
        like = example(self.job, amounts)
        every = range(len(self.parts.blocks))

        def alike(unit: str) -> dict[int, tuple[int, ...]]:
            mine = next(iter(getattr(like, unit).values()), None)
            return {} if mine is None else dict.fromkeys(every, mine)

        kept = Kept(tuple(left), alike("channels"), alike("heads"), alike("experts"))
        sizes = self.checkpoint.shapes
        return 1 - sum(numbers(block_cuts(self.parts, self.built, sizes, kept, index), sizes) for index in left) / total

    def _order(self, count: int) -> list[int]:
        some = first_of_all([*self.judge, *self.solve], DEPTH_TOKENS)
        importance = self.removal.importance["layers"]
        return blocks_to_take(
            importance, self.checkpoint, self.parts, some, count, self.job.device, self.folder, self.tell
        )

    def _experts(self, offered: Sequence[Amounts]) -> dict[int, dict[int, tuple[int, ...]]]:
        """By block and number of experts, which stay."""
        numbers = {one.experts for one in offered}
        if "experts" not in self.removal.units:
            return {}
        routing = Routing()
        table = self.table
        walk = Walk(self.checkpoint, self.parts, self.solve, [], table, table, self.job.device, self.folder)
        walk.go(routing)
        importance = self.removal.importance["experts"]
        return {
            index: {number: routed.best(importance, number) for number in numbers}
            for index, routed in routing.blocks.items()
        }

    def _climb(self, offered: Sequence[Amounts], gone: Sequence[int], experts: Any) -> dict[Amounts, float]:
        """Try shapes: the one with the most blocks and heads, then those next to the best so far, while that helps."""
        stage = Stage(self.tell, "shape", min(TRIALS, len(offered)))

        def loss(one: Amounts) -> float:
            kl = self._trial(one, gone, experts)
            stage.step()
            return kl

        found = climb(offered, loss)
        stage.reach(stage.of)
        return found

    def _trial(self, one: Amounts, gone: Sequence[int], experts: Any, repair: bool | None = None) -> float:
        """KL to the original of a model of that shape, on some of the verifying text."""
        solve, judge = first_of_all(self.solve, TRIAL_TOKENS), first_of_all(self.judge, TRIAL_TOKENS // 4)
        mine = {index: tuple(routed[one.experts]) for index, routed in experts.items()}
        repair = self.removal.repair if repair is None else repair
        cutter = Cutter(self.cutting(self.left(gone, one), self.alike(one), repair, mine), len(solve))
        return agreement_at_end(self.walked(cutter, solve, judge), judge, len(solve), self.job)["kl"]

    def left(self, gone: Sequence[int], amounts: Amounts) -> tuple[int, ...]:
        """The blocks that stay."""
        whole = len(self.parts.blocks)
        return tuple(sorted(set(range(whole)) - set(gone[: whole - amounts.layers])))

    def proving(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Batches that the pass which writes the folder calibrates on, and those that it is measured on."""
        return self.solve, self.judge

    @property
    def numbered(self) -> dict[str, int]:
        """How many every block has of the units that can be taken."""
        return {unit: count for unit, count in self.counts.items() if isinstance(count, int)}

    def sorted_units(self, units: Sequence[str]) -> dict[str, dict[int, list[int]]]:
        """By unit and block all of them, those that are worth most first."""
        if not units:
            return {}
        stage = Stage(self.tell, "sort", len(self.parts.blocks))
        counts = {unit: self.numbered[unit] for unit in units}
        sorter = Sorter(counts, self.removal.importance, stage.step)
        walk = Walk(self.checkpoint, self.parts, self.solve, [], self.table, self.table, self.job.device, self.folder)
        walk.go(sorter)
        return sorter.orders

    def planned(self, shape: Mapping[str, Any]) -> Cutting:
        """What goes by a shape that was found (`shape`)."""
        amounts = Amounts(**shape["amounts"])
        experts = {int(index): tuple(mine) for index, mine in shape["experts"].items()}
        orders = {unit: {int(i): mine for i, mine in found.items()} for unit, found in shape.get("orders", {}).items()}
        return self.cutting(shape["layers"], self.alike(amounts), shape.get("repair", False), experts, orders)

    def alike(self, amounts: Amounts) -> dict[str, dict[int, int]]:
        """By unit and block how many stay, where every block keeps as many, and fewer than it had."""
        every = range(len(self.parts.blocks))
        return {
            unit: dict.fromkeys(every, number)
            for unit, number in (("channels", amounts.channels), ("heads", amounts.heads))
            if isinstance(count := self.counts[unit], int) and number < count
        }

    def cutting(
        self,
        layers: Sequence[int],
        amounts: Mapping[str, Mapping[int, int]],
        repair: bool,
        experts: Mapping[int, tuple[int, ...]] | None = None,
        orders: Orders | None = None,
    ) -> Cutting:
        """What goes where `layers` and `amounts` stay. experts: by block those that do. orders: by unit and block,
        where it was found before which come first."""
        importance, dtype = self.removal.importance, self.job.dtype
        return Cutting(tuple(layers), self.numbered, amounts, importance, repair, dtype, experts or {}, orders or {})

    def walked(self, cutter: Cutter, solve: Sequence[Tensor], judge: Sequence[Tensor]) -> Walk:
        """A walk at its end, in which every block was cut; its batches are those of `solve`, then those of `judge`."""
        walk = Walk(
            self.checkpoint,
            self.parts,
            [*solve, *judge],
            [],
            self.table,
            self.table,
            self.job.device,
            self.folder,
            follow=True,
        )
        walk.go(cutter)
        return walk


def first_of_all(found: Sequence[Tensor], tokens: int) -> list[Tensor]:
    """As many batches as hold `tokens`, at least one."""
    taken: list[Tensor] = []
    for batch in found:
        if taken and sum(one.numel() for one in taken) + batch.numel() > tokens:
            break
        taken.append(batch)
    return taken


def climb(offered: Sequence[Amounts], loss: Callable[[Amounts], float]) -> dict[Amounts, float]:
    """What shapes lose: of the first of them, then of those next to the best so far, while that helps."""
    found: dict[Amounts, float] = {}
    waiting = [offered[0]]
    while waiting and len(found) < TRIALS:
        one = waiting.pop(0)
        found[one] = loss(one)
        best = min(found, key=lambda tried: found[tried])
        waiting = [other for other in beside(best, offered) if other not in found]
    return found


def beside(one: Amounts, offered: Sequence[Amounts]) -> list[Amounts]:
    """The shapes next to one: with the next number of heads, either way, or of blocks."""
    heads = sorted({other.heads for other in offered if other.layers == one.layers})
    at = heads.index(one.heads)
    beside = [(one.layers, number) for number in (*heads[max(0, at - 1) : at], *heads[at + 1 : at + 2])]
    beside += [(layers, one.heads) for layers in (one.layers - 1, one.layers + 1)]
    by_place = {(other.layers, other.heads): other for other in offered}
    return [by_place[place] for place in beside if place in by_place]


def agreement_at_end(walk: Walk, judge: Sequence[Tensor], first: int, job: Job) -> dict[str, float]:
    """`kl` and `top1` on the batches from number `first` on, at the end of a walk."""
    return kl_and_top1(walk, judge, walk.pairs(range(first, first + len(judge))), job)


def kl_and_top1(
    walk: Walk, judge: Sequence[Tensor], pairs: Iterable[tuple[Tensor, Tensor]], job: Job
) -> dict[str, float]:
    """Both of `pairs` of what the heads read, of the original and of the smaller model."""
    head = job.checkpoint.read((job.anatomy.head or job.anatomy.embedding).parameter).to(job.device).float()
    found = agreement(walk.skeleton, judge, pairs, head, head)
    return {"kl": found.kl, "top1": found.top1}
