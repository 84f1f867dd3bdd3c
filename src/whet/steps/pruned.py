"""Pruning carried out: the shape chosen, blocks cut and written one by one, and the folder finished and proved."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Cut, Kept, anatomy, block_cuts, columns, resized, unit_counts
from whet.anatomy.surgery import READERS
from whet.apply.cut import Cutter, Cutting, Done
from whet.apply.depth import blocks_to_take
from whet.apply.experts import Routing
from whet.apply.job import BATCH_TOKENS, Job
from whet.apply.run import Run
from whet.budget import tensor_bytes
from whet.checkpoint import (
    MANIFEST,
    NAMED,
    Checkpoint,
    copy_beside,
    differing_shape,
    hashed_files,
    model_config,
    read_header,
    read_tensor,
    size_on_disk,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.errors import UsageError
from whet.events import Stage, Way, note_event
from whet.measure.divergence import score_tokens
from whet.messages import Message, to_json
from whet.pruning import Amounts, Weights, shapes
from whet.steps.lineage import next_manifest
from whet.steps.options import RECIPE, recipe_text
from whet.steps.prune_card import prune_card
from whet.steps.prune_proof import prove_pruned
from whet.steps.rates import multiplications_per_second
from whet.text import batches
from whet.walk import Journal, Untouched, Walk

SHAPE = "shape.json"
_TRIALS = 8  # shapes that are tried at the most
_DEPTH_TOKENS = 8192  # of which every candidate for going is measured
_TRIAL_TOKENS = 32768  # that a shape is tried on
_BASE_MEMORY = 700 * 2**20
_WRITE = 2e-8  # seconds a weight that is written


def weights_of(job: Job) -> Weights:
    """What the units of the model weigh."""
    parts, checkpoint = job.anatomy, job.checkpoint
    config, sizes = built(job), checkpoint.shapes
    counts = {unit: n if isinstance(n, int) else 0 for unit, n in unit_counts(parts, config).items()}
    whole = Amounts(len(parts.blocks), counts["channels"], counts["heads"], counts["experts"])
    every = tuple(range(whole.layers))
    block = [_numbers(block_cuts(parts, config, sizes, Kept(every), index), sizes) for index in every]
    last = every[-1]

    def alone(unit: str, count: int) -> int:
        if count < 2:
            return 0
        less = Kept(every, **{unit: {last: tuple(range(count - 1))}})
        return block[last] - _numbers(block_cuts(parts, config, sizes, less, last), sizes)

    sparse = sum(any(x.held.expert is not None for x in linears) for linears in parts.blocks)
    expert = Fraction(alone("experts", whole.experts) * sparse, whole.layers)
    return Weights(block, alone("channels", whole.channels), alone("heads", whole.heads), expert, whole)


def needs_of(job: Job) -> dict[str, Any]:
    """What a run takes: `bytes` before and after, `memory`, `disk`, and `seconds` by `stages`; rough."""
    assert job.removal is not None
    parts, checkpoint, weights = job.anatomy, job.checkpoint, weights_of(job)
    before = tensor_bytes(parts, checkpoint.stored, {})
    offered = offered_shapes(job)
    after = _bytes_after(job, offered[0], before)
    block = max(weights.block)
    tokens = job.tokens + sum(map(len, job.verify))
    hidden = 4 * parts.embedding.shape[1] * 2 * tokens
    streams = 4 * parts.embedding.shape[1] * min(tokens, _DEPTH_TOKENS) * (weights.whole.layers + 2)
    widest = parts.widest
    activations = 4 * BATCH_TOKENS * 4 * max(x.shape[0] for x in parts.linears())
    memory = _BASE_MEMORY + 10 * block + 24 * widest**2 + 8 * widest * parts.embedding.shape[1] + activations
    memory += max(hidden, streams if "layers" in job.removal.units else 0)
    rate = multiplications_per_second()
    walk = 2 * weights.total / rate
    deepest = max((weights.whole.layers - one.layers for one in offered), default=0)
    stages = {}
    if deepest and job.removal.importance.get("layers") != "influence":
        stages["depth"] = walk * min(tokens, _DEPTH_TOKENS) * deepest * weights.whole.layers / 2
    if len(offered) > 1:
        stages["shape"] = 4 * walk * min(tokens, _TRIAL_TOKENS) * min(len(offered), _TRIALS)
    stages["cut"] = 6 * walk * tokens + _WRITE * weights.total + 12 * widest**3 * weights.whole.layers / rate
    stages["finish"] = 0.5 + 4e-9 * before["total"]
    return {
        "bytes": {"before": before, "after": after, "ratio": after["total"] / before["total"]},
        "memory": int(memory),
        "disk": int(after["total"] * 1.02) + 2**20 + hidden,
        "seconds": sum(stages.values()),
        "stages": stages,
    }


def offered_shapes(job: Job) -> list[Amounts]:
    """Shapes without the share that is to go, of which transformers builds models of the family. Raises UsageError
    where there is none, with what can be."""
    assert job.removal is not None
    folder, weights, removal = job.checkpoint.path, weights_of(job), job.removal
    found = shapes(weights, removal.share, removal.units)
    if not found:
        every = [Fraction(number, 200) for number in range(1, 200)]
        possible = [share for share in every if shapes(weights, share, removal.units)]
        near = min(possible, key=lambda share: abs(share - removal.share), default=None)
        raise UsageError(
            "{folder}: no shape with fewer {units} is {share:.1%} of the blocks' parameters smaller. {near}",
            folder=folder,
            units=", ".join(removal.units),
            share=float(removal.share),
            near=Message("Units are too few to take any. Give others.")
            if near is None
            else Message("The nearest share that can go: {share:.1%}. Give it, or other units.", share=float(near)),
        )
    faults = {one: why for one in found if (why := _fault(job, one)) is not None}
    if len(faults) == len(found):
        raise UsageError(
            "{folder}: transformers builds no model with fewer {units}: {why}. Give other units.",
            folder=folder,
            units=", ".join(removal.units),
            why=next(iter(faults.values())),
        )
    return [one for one in found if one not in faults]


def _fault(job: Job, amounts: Amounts) -> Message | None:
    """Why transformers does not build a model of that shape, if it does not."""
    checkpoint, parts = job.checkpoint, job.anatomy
    config, cuts = resized(parts, checkpoint.config, built(job), checkpoint.shapes, example(job, amounts))
    wanted = {parts.name(name): cut.shape(checkpoint.shapes[cut.stored]) for name, cut in cuts.items()}
    try:
        differing = differing_shape(checkpoint, config, wanted)
    except Exception as error:  # whatever a config that it does not take leads to
        return Message("{error}", error=" ".join(str(error).split()).removesuffix("."))
    if differing is None:
        return None
    name, shape = differing
    return Message(
        "{name} would have to be {wanted}, and the family has no entry in its config that says so (with the nearest it "
        "is {shape})",
        name=name,
        wanted=list(wanted[name]),
        shape=list(shape),
    )


def example(job: Job, amounts: Amounts) -> Kept:
    """A model of that shape: the first of every unit."""
    whole = weights_of(job).whole

    def first(unit: str) -> dict[int, tuple[int, ...]]:
        fewer = getattr(amounts, unit) < getattr(whole, unit)
        return {index: tuple(range(getattr(amounts, unit))) for index in range(amounts.layers)} if fewer else {}

    return Kept(tuple(range(amounts.layers)), first("channels"), first("heads"), first("experts"))


def _bytes_after(job: Job, amounts: Amounts, before: Mapping[str, int]) -> dict[str, int]:
    """Bytes by part of a model of that shape."""
    parts, checkpoint = job.anatomy, job.checkpoint
    _, cuts = resized(parts, checkpoint.config, built(job), checkpoint.shapes, example(job, amounts))
    every = {x.parameter for x in parts.linears()}
    found = {**before, "linears": 0, "other": 0}
    tables = {x.parameter for x in (parts.embedding, parts.head) if x is not None}
    for cut in cuts.values():
        if cut.stored not in tables:
            info = checkpoint.tensors[cut.stored]
            part = "linears" if cut.stored in every else "other"
            found[part] += math.prod(cut.shape(info.shape)) * info.dtype.itemsize
    return {**found, "total": sum(size for part, size in found.items() if part != "total")}


def carried_out(run: Run, job: Job, began: Mapping[str, Any], way: Way) -> dict[str, Any]:
    """See a run through that is begun or gone on with."""
    started = time.monotonic()
    for note in job.notes:
        way(note_event(note))
    work = _Work(run, job, way)
    shape = work.shape()
    kept, ended = work.cut(shape)
    result = work.finished(shape, kept, ended, began)
    run.close()
    return {**result, "seconds": {"this call": time.monotonic() - started}}


class _Work:
    """A run of the step, from the shape to the finished folder."""

    def __init__(self, run: Run, job: Job, way: Way) -> None:
        assert job.removal is not None
        self.run, self.job, self.way, self.removal = run, job, way, job.removal
        self.parts, self.checkpoint, self.built = job.anatomy, job.checkpoint, built(job)
        self.solve = batches(job.solve, BATCH_TOKENS) or [torch.arange(16)[None] % job.anatomy.embedding.shape[0]]
        self.judge = batches(job.verify, BATCH_TOKENS)
        self.table = self.checkpoint.read(self.parts.embedding.parameter)
        self.journal = Journal(run.folder)

    def shape(self) -> dict[str, Any]:
        """Which blocks stay, how many of the other units, which experts, and what was tried to find out."""
        file = self.run.folder / SHAPE
        if not file.is_file():
            write_json(file, self._found())
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def _found(self) -> dict[str, Any]:
        weights = weights_of(self.job)
        offered = offered_shapes(self.job)
        experts = self._experts(offered)
        deepest = max(weights.whole.layers - one.layers for one in offered)
        gone = self._order(deepest) if deepest else []
        tried: dict[Amounts, float | None] = {}
        if len(offered) == 1 or self.job.anatomy.task != "causal" or not self.judge:
            tried[offered[0]] = None
        else:
            self._climb(offered, gone, experts, tried)
        best = min(tried, key=lambda one: tried[one] or 0.0)
        left = self._left(gone, best)
        return {
            "amounts": asdict(best),
            "layers": list(left),
            "order": gone,
            "experts": {str(index): list(routed[best.experts]) for index, routed in experts.items()},
            "removed": self._removed(left, best, weights.total),
            "trials": [{**asdict(one), "kl": kl} for one, kl in tried.items() if kl is not None],
        }

    def _removed(self, left: Sequence[int], amounts: Amounts, total: int) -> float:
        """The share of the blocks' parameters that goes, exactly."""
        like = example(self.job, amounts)
        every = range(len(self.parts.blocks))

        def alike(unit: str) -> dict[int, tuple[int, ...]]:
            mine = next(iter(getattr(like, unit).values()), None)
            return {} if mine is None else dict.fromkeys(every, mine)

        kept = Kept(tuple(left), alike("channels"), alike("heads"), alike("experts"))
        sizes = self.checkpoint.shapes
        return 1 - sum(_numbers(self._cuts(kept, index), sizes) for index in left) / total

    def _order(self, count: int) -> list[int]:
        some = _first([*self.judge, *self.solve], _DEPTH_TOKENS)
        importance = self.removal.importance["layers"]
        return blocks_to_take(
            importance, self.checkpoint, self.parts, some, count, self.job.device, self.run.folder, self.way
        )

    def _experts(self, offered: Sequence[Amounts]) -> dict[int, dict[int, tuple[int, ...]]]:
        """By block and number of experts, which stay."""
        numbers = {one.experts for one in offered}
        if "experts" not in self.removal.units:
            return {}
        routing = Routing()
        table = self.table
        walk = Walk(self.checkpoint, self.parts, self.solve, [], table, table, self.job.device, self.run.folder)
        walk.go(routing)
        importance = self.removal.importance["experts"]
        return {
            index: {number: routed.best(importance, number) for number in numbers}
            for index, routed in routing.blocks.items()
        }

    def _climb(
        self, offered: Sequence[Amounts], gone: Sequence[int], experts: Any, tried: dict[Amounts, float | None]
    ) -> None:
        """Try shapes: the one with the most blocks and heads, then those next to the best so far, while that helps."""
        stage = Stage(self.way, "shape", min(_TRIALS, len(offered)))
        solve, judge = _first(self.solve, _TRIAL_TOKENS), _first(self.judge, _TRIAL_TOKENS // 4)
        found: dict[Amounts, float] = {}
        waiting = [offered[0]]
        while waiting and len(found) < _TRIALS:
            one = waiting.pop(0)
            cutter = Cutter(self._cutting(self._left(gone, one), one, experts), len(solve))
            found[one] = _ended(self._walked(cutter, solve, judge), judge, len(solve), self.job)["kl"]
            stage.step()
            best = min(found, key=lambda tried_one: found[tried_one])
            waiting = [other for other in _beside(best, offered) if other not in found]
        stage.reach(stage.of)
        tried |= found

    def _left(self, gone: Sequence[int], amounts: Amounts) -> tuple[int, ...]:
        """The blocks that stay."""
        whole = len(self.parts.blocks)
        return tuple(sorted(set(range(whole)) - set(gone[: whole - amounts.layers])))

    def _cutting(self, layers: Sequence[int], amounts: Amounts, experts: Mapping[int, Any]) -> Cutting:
        whole = unit_counts(self.parts, self.built)
        wanted = {"channels": amounts.channels, "heads": amounts.heads}
        fewer = {u: (n, whole[u]) for u, n in wanted.items() if isinstance(whole[u], int) and n < whole[u]}  # type: ignore[operator]
        importance = self.removal.importance.get("channels") or self.removal.importance.get("heads") or "obs"
        return Cutting(
            tuple(layers),
            fewer,  # type: ignore[arg-type]
            importance,
            self.removal.repair,
            self.job.dtype,
            {index: tuple(routed[amounts.experts]) for index, routed in experts.items()},
        )

    def _walked(self, cutter: Cutter, solve: Sequence[Tensor], judge: Sequence[Tensor]) -> Walk:
        walk = Walk(
            self.checkpoint,
            self.parts,
            [*solve, *judge],
            [],
            self.table,
            self.table,
            self.job.device,
            self.run.folder,
            follow=True,
        )
        walk.go(cutter)
        return walk

    def cut(self, shape: Mapping[str, Any]) -> tuple[Kept, Walk]:
        """Cut and write every block, then the rest; returns what stays and the walk at its end."""
        amounts = Amounts(**shape["amounts"])
        experts = {int(index): {amounts.experts: tuple(mine)} for index, mine in shape["experts"].items()}
        cutting = self._cutting(shape["layers"], amounts, experts)
        stage = Stage(self.way, "cut", len(shape["layers"]))

        def write(index: int, done: Done) -> None:
            self._write(cutting, index, done)
            stage.step(unit=f"block {index}")

        cutter = Cutter(cutting, len(self.solve), lambda index: self._earlier(cutting, index), write)
        walk = self._walked(cutter, self.solve, self.judge)
        self._rest(len(cutting.layers))
        return cutter.chosen(), walk

    def _file(self, number: int, of: int) -> Path:
        return self.run.out / f"model-{number + 1:05d}-of-{of:05d}.safetensors"

    def _write(self, cutting: Cutting, index: int, done: Done) -> None:
        """Write a block as it is without what goes."""
        kept = Kept(
            cutting.layers,
            **{unit: {index: mine} for unit, mine in done.kept.items()},
            experts={index: cutting.experts[index]} if index in cutting.experts else {},
        )
        cuts = block_cuts(self.parts, self.built, self.checkpoint.shapes, kept, index)
        changed = {x.parameter: x for x in self.parts.blocks[index] if x.address in done.weights}
        tensors = {}
        for name, cut in cuts.items():
            tensor = self.checkpoint.read(cut.stored)
            if cut.stored in changed:
                linear = changed[cut.stored]
                linear.view(tensor).copy_(done.weights[linear.address])
                _finite(linear.address, tensor)
            tensors[name] = cut.of(tensor)
        file = self._file(cutting.layers.index(index), len(cutting.layers) + 1)
        write_tensors(file, tensors)
        told = {unit: list(mine) for unit, mine in done.kept.items()}
        self.journal.record(_unit(index), file, kept=told, ridges=dict(done.ridges))

    def _earlier(self, cutting: Cutting, index: int) -> Done | None:
        """A block that an earlier run wrote, read back."""
        entry = self.journal.finished(_unit(index), self.run.out)
        if entry is None:
            return None
        kept = {unit: tuple(mine) for unit, mine in entry["kept"].items()}
        stored = read_header(self.run.out / entry["file"])
        weights = {}
        made = Kept(cutting.layers, **{unit: {index: mine} for unit, mine in kept.items()})
        names = {cut.stored: name for name, cut in self._cuts(made, index).items()}
        for linear in self.parts.blocks[index]:
            unit = next((unit for unit, role in READERS.items() if role == linear.role), None)
            if unit is None or not (unit in kept or self.removal.repair):
                continue
            own = read_tensor(stored[names[linear.parameter]]).float()
            own = own.t() if linear.transposed else own
            w = torch.zeros(linear.shape)
            count = unit_counts(self.parts, self.built)[unit]
            mine = kept.get(unit)
            at = torch.arange(linear.shape[1]) if mine is None else columns(mine, int(count), linear.shape[1])  # type: ignore[arg-type]
            w[:, at] = own
            weights[linear.address] = w.to(self.job.device)
        return Done(kept, weights, entry["ridges"])

    def _cuts(self, kept: Kept, index: int) -> dict[str, Cut]:
        return block_cuts(self.parts, self.built, self.checkpoint.shapes, kept, index)

    def _rest(self, blocks: int) -> None:
        file = self._file(blocks, blocks + 1)
        if self.journal.finished("rest", self.run.out) is None:
            names = [name for name in self.parts.other_tensors if name != self.parts.dropped]
            write_tensors(file, {name: self.checkpoint.read(name) for name in names})
            self.journal.record("rest", file)

    def finished(self, shape: Mapping[str, Any], kept: Kept, ended: Walk, began: Mapping[str, Any]) -> dict[str, Any]:
        """Index, config, the original's other files, proof, card and manifest."""
        job, out = self.job, self.run.out
        count = len(kept.layers) + 1
        headers = {self._file(number, count).name: read_header(self._file(number, count)) for number in range(count)}
        mapping = {name: file for file, header in headers.items() for name in header}
        total = sum(info.nbytes for header in headers.values() for info in header.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(mapping.items()))}
        write_json(out / "model.safetensors.index.json", index)
        config, _ = resized(self.parts, self.checkpoint.config, self.built, self.checkpoint.shapes, kept)
        write_json(out / "config.json", {key: value for key, value in config.items() if key != NAMED})
        copy_beside(job.original.path, out, began["files"])
        first = (self.solve[0], ended.lighter[0])
        found: dict[str, Any] = {}
        if self.judge and self.parts.task == "causal" and not kept.experts:
            found |= _ended(ended, self.judge, len(self.solve), job)
        found["check"] = prove_pruned(out, job, ended.skeleton, *first, exact=not kept.experts)
        if self.judge and self.parts.task == "causal" and kept.experts:
            found |= self._measured(out)
        notes = [*job.notes, *_notes(job, shape)]
        for note in notes[len(job.notes) :]:
            self.way(note_event(note))
        write_bytes(out / RECIPE, recipe_text(began["recipe"], "whet run recipe.yaml").encode())
        write_bytes(out / "README.md", prune_card(job, shape, found, notes, asdict(weights_of(job).whole)).encode())
        manifest = next_manifest(
            job.original,
            {**job.record(), "removed": shape["removed"], "amounts": shape["amounts"]},
            name=job.name,
            sha256=job.sha256,
            container="dense",
            target=job.target,
            kept=kept.record(),
            verify={key: found[key] for key in ("kl", "top1") if key in found},
            notes=to_json(notes),
            files=hashed_files(out),
        )
        write_json(out / MANIFEST, manifest.document())
        Stage(self.way, "finish", 1).step()
        return {
            "out": str(out),
            **job.choices(),
            "removed": shape["removed"],
            "amounts": shape["amounts"],
            "kept": kept.record(),
            "trials": shape["trials"],
            "sizes": {"original": size_on_disk(job.original.path), "lighter": size_on_disk(out)},
            "loads_in": "transformers",
            **found,
            "notes": notes,
        }

    def _measured(self, out: Path) -> dict[str, float]:
        """As `_ended`, of the folder that was written."""
        written = Checkpoint(out)
        parts = anatomy(written.config, written.shapes, str(out), self.parts.family)
        table = written.read(parts.embedding.parameter)
        walks = [
            Walk(self.checkpoint, self.parts, self.judge, [], self.table, self.table, self.job.device),
            Walk(written, parts, self.judge, [], table, table, self.job.device),
        ]
        for walk in walks:
            walk.go(Untouched())
        head = self.checkpoint.read((self.parts.head or self.parts.embedding).parameter).to(self.job.device).float()
        return _agreement(walks[0], self.judge, zip(*(walk.final() for walk in walks), strict=True), head)


def built(job: Job) -> dict[str, Any]:
    """config.json with every default filled in."""
    whole: dict[str, Any] = model_config(job.checkpoint).to_dict()
    return {**whole, **job.checkpoint.config}


def _numbers(cuts: Mapping[str, Cut], sizes: Mapping[str, Sequence[int]]) -> int:
    return sum(math.prod(cut.shape(sizes[cut.stored])) for cut in cuts.values())


def _first(found: Sequence[Tensor], tokens: int) -> list[Tensor]:
    """As many batches as hold `tokens`, at least one."""
    taken: list[Tensor] = []
    for batch in found:
        if taken and sum(one.numel() for one in taken) + batch.numel() > tokens:
            break
        taken.append(batch)
    return taken


def _beside(one: Amounts, offered: Sequence[Amounts]) -> list[Amounts]:
    """The shapes next to one: with the next number of heads, either way, or of blocks."""
    heads = sorted({other.heads for other in offered if other.layers == one.layers})
    at = heads.index(one.heads)
    beside = [(one.layers, number) for number in (*heads[max(0, at - 1) : at], *heads[at + 1 : at + 2])]
    beside += [(layers, one.heads) for layers in (one.layers - 1, one.layers + 1)]
    by_place = {(other.layers, other.heads): other for other in offered}
    return [by_place[place] for place in beside if place in by_place]


def _ended(walk: Walk, judge: Sequence[Tensor], first: int, job: Job) -> dict[str, float]:
    """`_agreement` on the batches from number `first` on, at the end of a walk."""
    head = job.checkpoint.read((job.anatomy.head or job.anatomy.embedding).parameter).to(job.device).float()
    return _agreement(walk, judge, walk.pairs(range(first, first + len(judge))), head)


def _agreement(
    walk: Walk, judge: Sequence[Tensor], pairs: Iterable[tuple[Tensor, Tensor]], head: Tensor
) -> dict[str, float]:
    """`kl` (original ‖ smaller, nats a token) and `top1`, the share of positions with the same first choice."""
    total = same = 0.0
    count = 0
    for batch, (before, after) in zip(judge, pairs, strict=True):
        for row in range(len(batch)):
            first, second = (walk.skeleton.next_logits(one[row], head) for one in (before, after))
            kl, agree, _, _ = score_tokens(first, second, batch[row, 1:][None])
            total, same, count = total + kl.double().sum().item(), same + agree.sum().item(), count + kl.numel()
    return {"kl": total / count, "top1": same / count}


def _notes(job: Job, shape: Mapping[str, Any]) -> list[Message]:
    assert job.removal is not None
    notes = []
    if abs(shape["removed"] - float(job.removal.share)) > 0.02:
        notes.append(
            Message(
                "{removed:.1%} of the blocks' parameters went, not {share:.1%}: whole units come no nearer",
                removed=shape["removed"],
                share=float(job.removal.share),
            )
        )
    return notes


def _finite(address: str, tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise UsageError(
            "{linear}: weights that make up for others exceed what {dtype} holds. Convert the original to bfloat16 or "
            "float32 first.",
            linear=address,
            dtype=tensor.dtype,
        )


def _unit(index: int) -> str:
    return f"block {index}"
