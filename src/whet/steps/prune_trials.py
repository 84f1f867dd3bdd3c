"""Which shape a model is pruned to, and which blocks and experts stay: found by trying."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Kept, block_cuts, unit_counts
from whet.anatomy.surgery import READERS
from whet.apply.agreement import agreement
from whet.apply.cut import Cutter, Cutting
from whet.apply.depth import blocks_to_take
from whet.apply.experts import Routing
from whet.apply.job import BATCH_TOKENS, Job
from whet.apply.merging import Merging, merged, told
from whet.apply.narrow import Narrow, fitted_head
from whet.apply.sort import Sorter
from whet.apply.taylor import Taylor
from whet.checkpoint import write_json
from whet.events import OnEvent, Stage
from whet.pruning import Amounts
from whet.pruning.removal import TAYLOR
from whet.steps.prune_shapes import (
    DEPTH_TOKENS,
    GRADIENT_TOKENS,
    TRIAL_TOKENS,
    TRIALS,
    built,
    example,
    numbers,
    weights_of,
)
from whet.steps.prune_turned import head_of, turned
from whet.text import batches
from whet.walk import GradientWalk, Sample, Walk

SHAPE, ORDERS = "shape.json", "taylor.json"
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
        self.turned: Job | None = None
        if "hidden" in self.removal.units:
            self.turned = turned(job, folder, self.solve, tell)

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
        climbs = judged and (len(offered) > 1 or bool(self.removal.rivals))
        tried = self._climb(offered, gone, experts) if climbs else {}
        best, rival = min(tried, key=lambda one: tried[one]) if tried else (offered[0], "")
        left = self.left(gone, best)
        found = {
            "amounts": best.record(),
            "layers": list(left),
            "order": gone,
            "experts": {str(index): list(routed[best.experts]) for index, routed in experts.items()},
            "removed": self.removed(left, best, weights.total),
            "trials": [
                {**one.record(), **({"importance": name} if name else {}), "kl": kl}
                for (one, name), kl in tried.items()
            ],
            "repair": self.removal.repair,
            **({"importance": self.removal.used(rival)} if rival else {}),
            **({"merged": told(self.folder)} if self.removal.merge else {}),
        }
        if judged and self.removal.repair:
            fitted = tried[best, rival] if tried else self._trial(best, gone, experts)
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

        kept = Kept(tuple(left), alike("channels"), alike("heads"), alike("experts"), like.hidden)
        sizes = self.checkpoint.shapes
        return 1 - sum(numbers(block_cuts(self.parts, self.built, sizes, kept, index), sizes) for index in left) / total

    def _order(self, count: int) -> list[int]:
        some = first_of_all([*self.judge, *self.solve], DEPTH_TOKENS)
        importance = self.removal.importance["layers"]
        return blocks_to_take(
            importance,
            self.checkpoint,
            self.parts,
            some,
            count,
            self.job.device,
            self.folder,
            self.tell,
            int(self.job.seed),
        )

    def _experts(self, offered: Sequence[Amounts]) -> dict[int, dict[int, tuple[int, ...]]]:
        """By block and number of experts, which stay."""
        numbers = {one.experts for one in offered}
        if "experts" not in self.removal.units:
            return {}
        importance = self.removal.importance["experts"]
        routing = Merging(offered[0].experts, importance) if self.removal.merge else Routing()
        table = self.table
        walk = Walk(self.checkpoint, self.parts, self.solve, [], table, table, self.job.device, self.folder)
        walk.go(routing)
        if isinstance(routing, Merging):
            routing.write(self.folder)
        return {
            index: {number: routed.best(importance, number) for number in numbers}
            for index, routed in routing.blocks.items()
        }

    def _climb(self, offered: Sequence[Amounts], gone: Sequence[int], experts: Any) -> dict[tuple[Amounts, str], float]:
        """Try shapes: some with different numbers of blocks, then those next to the best so far, while that helps.
        Where importances are rivals, all are tried at the first shape and at the best, and between them the one that
        lost least at the first. Returns KL by shape and rival, which is "" where there is none."""
        rivals = self.removal.rivals or ("",)
        stage = Stage(self.tell, "shape", min(TRIALS, len(offered)) + len(rivals[1:]) * min(len(offered), 2))
        found: dict[tuple[Amounts, str], float] = {}

        def best() -> tuple[Amounts, str]:
            return min(found, key=lambda tried: found[tried])

        def loss(one: Amounts, names: Sequence[str] = ()) -> float:
            for name in names or ([best()[1]] if found else rivals):
                if (one, name) not in found:
                    found[one, name] = self._trial(one, gone, experts, rival=name)
                    stage.step()
            return min(kl for (tried, _), kl in found.items() if tried == one)

        climb(offered, loss)
        loss(best()[0], rivals)
        stage.reach(stage.of)
        return found

    def _trial(
        self, one: Amounts, gone: Sequence[int], experts: Any, repair: bool | None = None, rival: str = ""
    ) -> float:
        """KL to the original of a model of that shape, on some of the verifying text. rival: the importance that is
        tried, where several are."""
        solve, judge = first_of_all(self.solve, TRIAL_TOKENS), first_of_all(self.judge, TRIAL_TOKENS // 4)
        mine = {index: tuple(routed[one.experts]) for index, routed in experts.items()}
        repair = self.removal.repair if repair is None else repair
        used = self.removal.used(rival)
        cutting = self.cutting(self.left(gone, one), self.alike(one), repair, mine, hidden=one.hidden, importance=used)
        return self.loss_of(Cutter(cutting, len(solve)), solve, judge)["kl"]

    def loss_of(self, cutter: Cutter, solve: Sequence[Tensor], judge: Sequence[Tensor]) -> dict[str, float]:
        """`kl` and `top1` on `judge` of what a cutter leaves, calibrated on `solve`."""
        walk = self.walked(cutter, solve, judge)
        return agreement_at_end(walk, judge, len(solve), *self.heads(walk, cutter, len(solve)))

    def job_of(self, cutting: Cutting) -> Job:
        """The job, about the model that `cutting` is of."""
        if cutting.narrow is None:
            return self.job
        assert self.turned is not None
        return self.turned

    def heads(self, walk: Walk, cutter: Cutter, solving: int) -> tuple[Tensor, Tensor]:
        """What gives logits of the original's final states, and of the smaller model's, at the end of a walk."""
        narrow = cutter.cutting.narrow
        head = head_of(self.job_of(cutter.cutting)).to(self.job.device).float()
        if narrow is None:
            return head, head
        return head, fitted_head(walk, narrow, solving, head) if cutter.cutting.repair else narrow.read(head)

    def left(self, gone: Sequence[int], amounts: Amounts) -> tuple[int, ...]:
        """The blocks that stay."""
        whole = len(self.parts.blocks)
        return tuple(sorted(set(range(whole)) - set(gone[: whole - amounts.layers])))

    def merged(self, index: int) -> Mapping[str, Tensor]:
        """By address the weights of experts of a block that took others in."""
        if not self.removal.merge:
            return {}
        return merged(self.folder, self.checkpoint, self.parts.blocks[index], index)

    def proving(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Batches that the pass which writes the folder calibrates on, and those that it is measured on."""
        return self.solve, self.judge

    @property
    def numbered(self) -> dict[str, int]:
        """How many every block has of the units that can be taken."""
        return {unit: count for unit, count in self.counts.items() if isinstance(count, int)}

    def sorted_units(self, units: Sequence[str]) -> dict[str, dict[int, list[int]]]:
        """By unit and block all of them, those that are worth most first."""
        by_gradients = {unit: dict(found) for unit, found in self.taylor().items() if unit in units}
        if not (units := [unit for unit in units if unit not in by_gradients]):
            return by_gradients
        stage = Stage(self.tell, "sort", len(self.parts.blocks))
        counts = {unit: self.numbered[unit] for unit in units}
        sorter = Sorter(counts, self.removal.importance, stage.step)
        walk = Walk(self.checkpoint, self.parts, self.solve, [], self.table, self.table, self.job.device, self.folder)
        walk.go(sorter)
        return sorter.orders | by_gradients

    def planned(self, shape: Mapping[str, Any]) -> Cutting:
        """What goes by a shape that was found (`shape`)."""
        amounts = Amounts(**shape["amounts"])
        experts = {int(index): tuple(mine) for index, mine in shape["experts"].items()}
        orders = {unit: {int(i): mine for i, mine in found.items()} for unit, found in shape.get("orders", {}).items()}
        repair = shape.get("repair", False)
        used = shape.get("importance")
        return self.cutting(shape["layers"], self.alike(amounts), repair, experts, orders, amounts.hidden, used)

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
        hidden: int = 0,
        importance: Mapping[str, str] | None = None,
    ) -> Cutting:
        """What goes where `layers` and `amounts` stay. experts: by block those that do. orders: by unit and block,
        where it was found before which come first. hidden: directions of the stream that stay; 0: it is not turned.
        importance: by unit, where it is not the removal's."""
        importance, dtype = importance or self.removal.importance, self.job.dtype
        orders = orders or self._by_gradients(amounts)
        width = self.parts.embedding.shape[1]
        narrow = Narrow(hidden, width, dtype) if 0 < hidden < width else None
        mine = experts or {}
        return Cutting(tuple(layers), self.numbered, amounts, importance, repair, dtype, mine, orders, narrow)

    def _by_gradients(self, amounts: Mapping[str, Mapping[int, int]]) -> Orders:
        """The units that stay first, in ascending order, of those whose importance is by gradients."""
        found: dict[str, dict[int, list[int]]] = {}
        for unit, by_block in self.taylor().items():
            stays = amounts.get(unit, {})
            ordered = {index: by_block[index] for index in stays}
            found[unit] = {i: [*sorted(mine[: stays[i]]), *mine[stays[i] :]] for i, mine in ordered.items()}
        return {unit: mine for unit, mine in found.items() if mine}

    def taylor(self) -> dict[str, dict[int, list[int]]]:
        """By unit and block all of them, those that are worth most by gradients first, of units chosen so."""
        units = [unit for unit in READERS if self.removal.importance.get(unit) == TAYLOR and unit in self.removal.units]
        if not units:
            return {}
        file = self.folder / ORDERS
        if not file.is_file():
            some = first_of_all(self.solve, GRADIENT_TOKENS)
            visitor = Taylor({unit: self.numbered[unit] for unit in units})
            walk = GradientWalk(
                self.checkpoint, self.parts, self.job.device, folder=self.folder, seed=int(self.job.seed)
            )
            walk.go([Sample.of_text(batch) for batch in some], visitor, walk.stage(1, self.tell))
            write_json(file, visitor.orders())
        found = json.loads(file.read_text(encoding="utf-8"))
        return {unit: {int(index): mine for index, mine in by_block.items()} for unit, by_block in found.items()}

    def walked(self, cutter: Cutter, solve: Sequence[Tensor], judge: Sequence[Tensor]) -> Walk:
        """A walk at its end, in which every block was cut; its batches are those of `solve`, then those of `judge`."""
        narrow = cutter.cutting.narrow
        job = self.job_of(cutter.cutting)
        table = lighter = self.table
        if narrow is not None:
            table = job.checkpoint.read(job.anatomy.embedding.parameter)
            lighter = narrow.table(table)
        batches = [*solve, *judge]
        walk = Walk(job.checkpoint, job.anatomy, batches, [], table, lighter, self.job.device, self.folder, follow=True)
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
    """What shapes lose: of some with different numbers of blocks, then of those next to the best so far, while that
    helps. One start alone ends in a pit where much goes: half of the embedded model, which four whole blocks do best,
    was left six thin ones at five times the divergence."""
    found = {one: loss(one) for one in starts(offered)}
    while len(found) < TRIALS:
        best = min(found, key=lambda tried: found[tried])
        untried = [other for other in beside(best, offered) if other not in found]
        if not untried:
            break
        found[untried[0]] = loss(untried[0])
    return found


def starts(offered: Sequence[Amounts]) -> list[Amounts]:
    """Where to begin: the shapes with the most heads of up to half of TRIALS numbers of blocks, evenly apart."""
    widest: dict[int, Amounts] = {}
    for one in offered:
        widest.setdefault(one.layers, one)
    every = list(widest.values())
    count = min(len(every), TRIALS // 2)
    return [every[round(number * (len(every) - 1) / max(1, count - 1))] for number in range(count)]


def beside(one: Amounts, offered: Sequence[Amounts]) -> list[Amounts]:
    """The shapes next to one: with the next number of heads, either way, of blocks, or of the stream's directions."""
    heads = sorted({other.heads for other in offered if other.layers == one.layers and other.hidden == one.hidden})
    beside = [(one.layers, number, one.hidden) for number in _around(heads, one.heads)]
    beside += [(layers, one.heads, one.hidden) for layers in (one.layers - 1, one.layers + 1)]
    hidden = sorted({other.hidden for other in offered if other.layers == one.layers and other.heads == one.heads})
    beside += [(one.layers, one.heads, number) for number in _around(hidden, one.hidden)]
    by_place = {(other.layers, other.heads, other.hidden): other for other in offered}
    return [by_place[place] for place in beside if place in by_place]


def _around(numbers: Sequence[int], one: int) -> list[int]:
    at = numbers.index(one)
    return [*numbers[max(0, at - 1) : at], *numbers[at + 1 : at + 2]]


def agreement_at_end(
    walk: Walk, judge: Sequence[Tensor], first: int, head: Tensor, lighter: Tensor
) -> dict[str, float]:
    """`kl_and_top1` on the batches from number `first` on, at the end of a walk."""
    return kl_and_top1(walk, judge, walk.pairs(range(first, first + len(judge))), head, lighter)


def kl_and_top1(
    walk: Walk, judge: Sequence[Tensor], pairs: Iterable[tuple[Tensor, Tensor]], head: Tensor, lighter: Tensor
) -> dict[str, float]:
    """Both of `pairs` of what the heads read, of the original and of the smaller model. head, lighter: the tables of
    both that give logits."""
    found = agreement(walk.skeleton, judge, pairs, head, lighter)
    return {"kl": found.kl, "top1": found.top1}
