"""Shapes that a model can be pruned to: what each leaves, and what a run takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from whet.anatomy import Cut, Kept, block_cuts, resized, unit_counts
from whet.apply.job import BATCH_TOKENS, Job
from whet.apply.merging import SAMPLED
from whet.budget import tensor_bytes
from whet.checkpoint import Decoded, differing_shape, model_config, size_on_disk
from whet.errors import UsageError
from whet.messages import Message
from whet.pruning import Amounts, Weights, shapes
from whet.pruning.removal import TAYLOR
from whet.steps.rates import multiplications_per_second

TRIALS = 8  # shapes that are tried at the most
DEPTH_TOKENS = 8192  # on which every candidate for going is measured
TRIAL_TOKENS = 32768  # that a shape is tried on
GRADIENT_TOKENS = 8192  # that gradients are summed on
_BASE_MEMORY = 700 * 2**20
WRITE = 2e-8  # seconds a weight that is written


def built(job: Job) -> dict[str, Any]:
    """config.json with every default filled in; of a text model inside a larger one its own entries over the others."""
    whole: dict[str, Any] = model_config(job.checkpoint).to_dict()
    return {**whole, **job.checkpoint.config, **job.anatomy.family.entries}


def whole_of(job: Job) -> Amounts:
    """How many units the model has; 0 of a kind that cannot be taken."""
    counts = {unit: n if isinstance(n, int) else 0 for unit, n in unit_counts(job.anatomy, built(job)).items()}
    hidden = counts["hidden"] if job.removal is not None and "hidden" in job.removal.units else 0
    return Amounts(len(job.anatomy.blocks), counts["channels"], counts["heads"], counts["experts"], hidden)


def weights_of(job: Job) -> Weights:
    """What the units of the model weigh."""
    parts, checkpoint = job.anatomy, job.checkpoint
    config, sizes = built(job), checkpoint.shapes
    whole = whole_of(job)
    every = tuple(range(whole.layers))
    block = [numbers(block_cuts(parts, config, sizes, Kept(every), index), sizes) for index in every]
    last = every[-1]

    def alone(unit: str, count: int) -> int:
        if count < 2:
            return 0
        fewer: dict[str, Any] = {unit: {last: tuple(range(count - 1))}}
        less = Kept(every, **fewer)
        return block[last] - numbers(block_cuts(parts, config, sizes, less, last), sizes)

    sparse = sum(any(x.held.expert is not None for x in linears) for linears in parts.blocks)
    expert = Fraction(alone("experts", whole.experts) * sparse, whole.layers)
    return Weights(block, alone("channels", whole.channels), alone("heads", whole.heads), expert, whole)


def needs_of(job: Job) -> dict[str, Any]:
    """What a run takes: `bytes` before and after, `memory`, `disk`, and `seconds` by `stages`; rough."""
    assert job.removal is not None
    parts, weights = job.anatomy, weights_of(job)
    before = bytes_before(job)
    offered = job.removal.offered
    after = bytes_after(job, offered[0], before)
    tokens = job.tokens + sum(map(len, job.verify))
    widest = parts.widest
    rate = multiplications_per_second()
    walk = 2 * weights.total / rate
    deepest = max((weights.whole.layers - one.layers for one in offered), default=0)
    stages = {}
    if deepest and job.removal.importance.get("layers") != "influence":
        stages["depth"] = walk * min(tokens, DEPTH_TOKENS) * deepest * weights.whole.layers / 2
    rivals = job.removal.rivals
    if len(offered) > 1 or rivals:
        trials = min(len(offered), TRIALS) + len(rivals[1:]) * min(len(offered), 2)
        stages["shape"] = 4 * walk * min(tokens, TRIAL_TOKENS) * trials
    if TAYLOR in job.removal.importance.values():
        stages["score"] = 3 * walk * min(tokens, GRADIENT_TOKENS)
    if "hidden" in job.removal.units:
        stages["turn"] = walk * tokens
    stages["prune"] = 6 * walk * tokens + WRITE * weights.total + 12 * widest**3 * weights.whole.layers / rate
    stages["finish"] = 0.5 + 4e-9 * before["total"]
    return {
        "bytes": {"before": before, "after": after, "ratio": after["total"] / before["total"]},
        "memory": memory_of(job),
        "disk": int(after["total"] * 1.02) + 2**20 + _hidden(job),
        "seconds": sum(stages.values()),
        "stages": stages,
    }


def memory_of(job: Job) -> int:
    """Bytes of memory that a run takes."""
    assert job.removal is not None
    parts, weights = job.anatomy, weights_of(job)
    widest, width = parts.widest, parts.embedding.shape[1]
    tokens = min(job.tokens + sum(map(len, job.verify)), DEPTH_TOKENS)
    streams = 4 * width * tokens * (weights.whole.layers + 2)
    activations = 4 * BATCH_TOKENS * 4 * max(x.shape[0] for x in parts.linears())
    if job.removal.merge:
        activations += 12 * SAMPLED * weights.whole.experts * (width + widest)
    memory = _BASE_MEMORY + 10 * max(weights.block) + 24 * widest**2 + 8 * widest * width + activations
    return memory + max(_hidden(job), streams if "layers" in job.removal.units else 0)


def _hidden(job: Job) -> int:
    """Bytes of both streams."""
    return 4 * job.anatomy.embedding.shape[1] * 2 * (job.tokens + sum(map(len, job.verify)))


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
    faults = {one: why for one in found if (why := fault(job, one)) is not None}
    if len(faults) == len(found):
        raise UsageError(
            "{folder}: transformers builds no model with fewer {units}: {why}. Give other units.",
            folder=folder,
            units=", ".join(removal.units),
            why=next(iter(faults.values())),
        )
    return [one for one in found if one not in faults]


def fault(job: Job, amounts: Amounts) -> Message | None:
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
    whole = whole_of(job)

    def first(unit: str) -> dict[int, tuple[int, ...]]:
        fewer = getattr(amounts, unit) < getattr(whole, unit)
        return {index: tuple(range(getattr(amounts, unit))) for index in range(amounts.layers)} if fewer else {}

    hidden = amounts.hidden if amounts.hidden < whole.hidden else None
    return Kept(tuple(range(amounts.layers)), first("channels"), first("heads"), first("experts"), hidden)


def bytes_before(job: Job) -> dict[str, int]:
    """Bytes by part of the model as it is stored."""
    if not isinstance(job.checkpoint, Decoded):
        return tensor_bytes(job.anatomy, job.checkpoint.stored, {})
    sizes = size_on_disk(job.checkpoint.path)
    found = {part: sizes[part] for part in ("linears", "embedding", "head", "other")}
    return {**found, "total": sum(found.values())}


def bytes_after(job: Job, amounts: Amounts, before: Mapping[str, int]) -> dict[str, int]:
    """Bytes by part of a model of that shape."""
    parts, checkpoint = job.anatomy, job.checkpoint
    kept = example(job, amounts)
    _, cuts = resized(parts, checkpoint.config, built(job), checkpoint.shapes, kept)
    every = {x.parameter for x in parts.linears()}
    found = {**before, "linears": 0, "other": 0}
    tables = {x.parameter for x in (parts.embedding, parts.head) if x is not None}
    for cut in cuts.values():
        if cut.stored not in tables:
            info = checkpoint.tensors[cut.stored]
            part = "linears" if cut.stored in every else "other"
            coded = isinstance(checkpoint, Decoded) and cut.stored in checkpoint.sources  # which goes whole or stays
            found[part] += info.on_disk if coded else math.prod(cut.shape(info.shape)) * info.dtype.itemsize
    if kept.hidden is not None:
        embedding = parts.embedding
        size = embedding.shape[0] * kept.hidden * checkpoint.tensors[embedding.parameter].dtype.itemsize
        found |= {"embedding": size, "head": size}  # each a tensor of its own
    return {**found, "total": sum(size for part, size in found.items() if part != "total")}


def numbers(cuts: Mapping[str, Cut], sizes: Mapping[str, Sequence[int]]) -> int:
    """How many parameters a block has once it was cut. sizes: shapes of the original's tensors."""
    return sum(math.prod(cut.shape(sizes[cut.stored])) for cut in cuts.values())
