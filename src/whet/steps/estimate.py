"""What a run will take in bytes, memory, disk and time, and whether the machine has it."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from pathlib import Path
from typing import Any

from whet.anatomy import Linear
from whet.apply.curvature import SLOPE_TOKENS
from whet.apply.job import BATCH_TOKENS, Job
from whet.apply.marginal import affordable
from whet.apply.repair import REPAIR_ROUNDS
from whet.apply.tune import TUNING_STEPS
from whet.budget import tables, tensor_bytes
from whet.checkpoint.memory import available_memory
from whet.errors import MachineError, UsageError
from whet.pruning.outliers import OWL
from whet.quantize import LEARNING_STEPS, ROUGH, SLICE, STEPS, WORDS, Effort
from whet.steps.decide import ENOUGH
from whet.steps.proof import PROVED
from whet.steps.rates import Rates, measured_rates, multiplications_per_second
from whet.steps.score import SCORED_TOKENS
from whet.train import STEP_TOKENS, usual_steps
from whet.transforms.judge import PROPOSED, judging_bytes, judging_memory, judging_multiplications
from whet.transforms.make import transformed_bytes
from whet.walk import hidden as hidden_states

# Bytes that training a block takes for each of its weights (places, their gradient, two averages of it, values, gaps
# and what rounding leaves on the way), and how many times a block's activations are there while it is trained.
_TRAINED, _KEPT = 68, 4
_STEP = 8.0  # multiplications and additions a weight and token of a training step: six, and what is not matrix products
# The same for a token that the original writes, which goes through it by itself: two, and waiting for the weights.
_WRITING = 8.0
# Multiplications and additions a token and number of the head that verifying takes: two products, and their KL.
_VERIFYING = 8.0
# The same a weight and token of scoring: forward, once more, and back. Seconds that pricing all schemes takes, a weight
# and a linear.
_WALKING, _PRICING, _PRICED = 8.0, 3e-6, 0.35
# Seconds of everything else, measured: a byte that is read, with its hash and the proof that it is finite; opening
# the model; a block that is written, and a weight of it; a number of an embedding or head that is rounded; the proof
# and the manifest, and a byte of the original that is loaded for it.
_READING, _OPENING = 1e-9, 0.03
_UNIT, _WRITTEN, _TABLE = 0.03, 2e-8, 5e-8
_FINISHING, _LOADED = 0.1, 4e-9
# Bytes that factorising a second moment takes for each of its numbers, in double precision at most.
_FACTOR = 14
# Candidates that a search for factors rounds some rows with.
_CANDIDATES = 20
# Bytes that learning rotations takes for each weight of a block, and of a basis: in float64, turned, and what a
# gradient needs. Multiplications and additions of a step: there, and two on the way back, in double precision.
_LEARNED, _LEARNING = 64, 12.0
# Multiplications and additions that repairing a module takes, over its smaller side cubed: eigenvectors, one or two
# times, in double precision.
_EIGEN = 100.0
# Bytes that choosing masks takes for each weight of what is solved together, and for each number of a second moment.
_MASKING, _INVERSE = 40, 16
# Numbers of vocabulary width that scoring looks at together, and how many such there are at its head (predictions,
# noise and what is made of them). Of an embedding or head: rows and positions at a time, and bytes for each pair of
# them and for each weight of those rows, which are solved.
_LOGITS, _AT_HEAD = 1 << 24, 6
_ROWS, _POSITIONS, _PAIR, _ROW = 8192, 2048, 16, 24
# What Python, torch and transformers take before any model is read, measured on Linux x86-64.
_BASE_MEMORY = 700 * 2**20


def estimate(job: Job) -> dict[str, Any]:
    """What the run will take: `bytes` by part before and after, peak `memory`, `disk`, `seconds` (a rough guess)."""
    parts, tensors, repair = job.anatomy, job.checkpoint.tensors, job.repair
    before, after = (
        tensor_bytes(parts, job.checkpoint.stored, {}),
        tensor_bytes(parts, tensors, job.grids, repair),
    )
    block = max(sum(tensors[n].nbytes // tensors[n].dtype.itemsize for n in names) for names in parts.block_tensors)
    chosen = job.chosen(parts.linears())
    widest = max((linear.shape[1] for linear in chosen), default=0)
    largest = max((_together(job, block) for block in parts.blocks), default=0)
    tokens = job.tokens
    hidden = 4 * parts.embedding.shape[1] * (tokens + 2 * sum(len(w) for w in job.verify))
    moments = max(_moments(job, block) for block in parts.blocks)
    # a second moment's factor and what steers, weights and codes of what is solved together, and a slice of it in work
    solving = _FACTOR * widest**2 + moments + 6 * largest + 40 * min(largest, SLICE) if tokens else 20 * largest
    if job.sparsity is not None:
        inverse = _INVERSE * widest**2 if job.sparsity.inputs else 0
        solving = max(solving + _MASKING * largest, moments + inverse + _MASKING * largest)
    if repair:  # the error and what is made of it in float64, and an eigenvalue problem of its smaller side
        solving += 32 * max(math.prod(m.shape) for m in job.repaired)
        solving += 24 * max(min(m.shape) for m in job.repaired) ** 2
    activations = 4 * BATCH_TOKENS * max(linear.shape[0] for linear in parts.linears()) * 3
    embedding = tensors[parts.embedding.parameter].nbytes * (3 if parts.embedding.address in job.grids else 1)
    if job.asymmetric:  # a drift for each second moment, a batch of the original's inputs, and its hidden states
        inputs = max(sum(width for _, width in _inputs(job, block)) for block in parts.blocks)
        solving += moments + 4 * BATCH_TOKENS * inputs
        hidden += 4 * parts.embedding.shape[1] * tokens
    if job.blockwise:
        hidden += 4 * parts.embedding.shape[1] * tokens
        trained = _TRAINED * block + _KEPT * activations * job.batch // BATCH_TOKENS
        solving = moments + max(solving - moments, trained)
    # a block as it runs, in float64 and as it is written, and what its inputs are on two texts
    folding = 16 * block + 2 * moments + 16 * widest**2 if job.transform is not None else 0
    if job.folding.stream:  # embedding and head as they were and as they are written
        folding = max(folding, 16 * math.prod(parts.embedding.shape))
    if job.folding.learned:
        folding = max(folding, _LEARNED * block + 2 * moments + _LEARNED * parts.embedding.shape[1] ** 2)
    judging = judging_memory(job, block)
    working = max(8 * block + solving, 4 * block + activations, embedding, folding, judging, _proving(job, after))
    memory = _BASE_MEMORY + working + hidden
    spilled = hidden if hidden > hidden_states.SPILL else 0
    if job.blockwise:
        width, count = parts.embedding.shape[1], len(parts.blocks)
        slopes = 4 * width * min(tokens, SLOPE_TOKENS) * (count + 1)
        spilled += 4 * width**2 * count + (slopes if slopes > hidden_states.SPILL else 0)
    rates = measured_rates(job)
    given = tokens - job.synthetic
    most = max(given, ENOUGH) if job.solve and parts.task == "causal" else given
    needs = {
        "bytes": {"before": before, "after": after, "ratio": after["total"] / before["total"]},
        "memory": int(memory),
        # llama.cpp's own file holds the weights once more
        "disk": int(after["total"] * 1.02) * (2 if job.storage.finished else 1)
        + 2**20
        + spilled
        + transformed_bytes(job)
        + judging_bytes(job, after["total"])
        # adapters lie block by block in the run's folder until they become one
        + after.get("adapter", 0),
        "seconds": _seconds(job, job.effort, rates, tokens),
    }
    if not job.storage.dense:
        needs["efforts"] = {
            word: _seconds(job, effort, rates, most if effort.writes else given) for word, effort in WORDS.items()
        }
    return needs


def seconds_by_stage(job: Job) -> dict[str, float]:
    """About how long the run takes, by what it does; a stage that is not needed is left out."""
    return _by_stage(job, job.effort, measured_rates(job), job.tokens)


def scoring_seconds(job: Job, tokens: int) -> float:
    """About how long scoring every part takes that many tokens are walked through, forward and back."""
    linears = job.anatomy.linears()
    weights = sum(linear.shape[0] * linear.shape[1] for linear in linears)
    return _WALKING * weights * tokens / multiplications_per_second() + _PRICING * weights + _PRICED * len(linears)


def _seconds(job: Job, effort: Effort, rates: Rates, tokens: int) -> float:
    """About how long the run takes with a solver on so many tokens."""
    return sum(_by_stage(job, effort, rates, tokens).values())


def _by_stage(job: Job, effort: Effort, rates: Rates, tokens: int) -> dict[str, float]:
    """The same by stage, in their order but for `judge`, which comes twice."""
    parts, multiply = job.anatomy, rates.multiply
    around = {"read": _READING * job.checkpoint.nbytes + _OPENING, "finish": _FINISHING + _LOADED * _proven(job)}
    chosen = job.chosen(parts.linears())
    weights = sum(linear.shape[0] * linear.shape[1] for linear in parts.linears())
    table = parts.embedding.shape[0] * parts.embedding.shape[1]
    rounds = 1 + (REPAIR_ROUNDS if job.repaired else 0)
    repairs = rounds * sum(_EIGEN * min(module.shape) ** 3 for module in job.repaired)
    if not tokens:
        rounding = rates.rounding("nearest") + _TABLE * table
        return around | {"compress": rounds * rounding + _UNIT * len(parts.blocks) + repairs / multiply}
    found = {}
    if writing := tokens - sum(map(len, job.solve)):
        found["write"] = _WRITING * (weights + table) * writing / multiply
    found |= _searching(job, effort, rates, tokens)
    if job.sparsity is not None and job.sparsity.allocation == OWL:
        found["score"] = tokens * (rates.heard + rates.passed)
    flops = 0.0
    if effort.correct:
        flops += 2.0 * weights * tokens + sum(2.0 * (tokens + 2 * x.shape[0]) * x.shape[1] ** 2 for x in chosen)
    flops += repairs + (_masking(job, chosen) if effort.text else 0.0)
    size = min(STEP_TOKENS, tokens)
    if effort.block:
        flops += _STEP * weights * size * usual_steps(tokens)
        found["curvature"] = 12.0 * weights * min(tokens, SLOPE_TOKENS) / multiply
    verified = sum(map(len, job.verify))
    walked = tokens * (rates.heard + rates.passed) + 2 * verified * rates.passed
    rounding = rounds * rates.rounding(effort.rounding) + _TABLE * table
    found["compress"] = walked + rounding + flops / multiply + _WRITTEN * weights + _UNIT * len(parts.blocks)
    if effort.tune:
        found["tune"] = (_STEP + 2) * weights * size * usual_steps(tokens, TUNING_STEPS) / multiply
    if job.verify:
        found["verify"] = _VERIFYING * table * verified / multiply
    return around | found


def _masking(job: Job, chosen: list[Linear]) -> float:
    """Multiplications and additions of choosing masks in stages, and of making up for what is gone."""
    if job.sparsity is None or job.sparsity.pattern is None:
        return 0.0
    stages = len(job.sparsity.pattern.stages()) - 1
    return sum(
        2.0 * (stages * ROUGH + STEPS) * math.prod(x.shape) * x.shape[1]
        + (4.0 * (stages + 1) * x.shape[1] ** 3 if job.sparsity.inputs else 0.0)
        for x in chosen
    )


def _proven(job: Job) -> int:
    """Bytes of the original, where the finished folder is loaded as a proof; else nothing."""
    dense = job.checkpoint.nbytes
    return dense if dense <= PROVED else 0


def _searching(job: Job, effort: Effort, rates: Rates, tokens: int) -> dict[str, float]:
    """About how long finding a transform takes: another walk, what candidates cost beside it, and what `auto` measures:
    every proposal rounded and followed, and the whole rounded twice."""
    if job.transform is None or job.transforms is not None:
        return {}
    width, count, multiply = job.anatomy.embedding.shape[1], len(job.anatomy.blocks), rates.multiply
    chosen = job.chosen(job.anatomy.linears())
    weights = sum(linear.shape[0] * linear.shape[1] for linear in chosen)
    turning = 4.0 * weights * width / multiply if job.folding.stream else 0.0
    if not job.folding.text:
        return {"transform": turning}
    walk = 2.0 * weights * tokens + sum(2.0 * tokens * linear.shape[1] ** 2 for linear in chosen) / 2
    search = sum(_CANDIDATES * min(linear.shape[0], 128) * linear.shape[1] for linear in chosen) * 1e-6
    if job.folding.learned:
        steps = LEARNING_STEPS * _LEARNING * (weights / count + width**2) * width
        return {"learn": (walk + steps) / multiply, "transform": turning}
    if not job.folding.judged:
        return {"transform": walk / multiply + search}
    rounded = dataclasses.replace(job, transform=None)
    every = sum(linear.shape[0] * linear.shape[1] for linear in job.anatomy.linears())
    rounding = effort.work * (PROPOSED + 1) * sum(linear.shape[0] * linear.shape[1] ** 2 for linear in chosen)
    return {
        "propose": (walk + rounding) / multiply + search,
        "follow": judging_multiplications(job, every) / multiply,
        "transform": weights * 1e-8,
        "judge": 2 * _seconds(rounded, effort.alone, rates, tokens),
    }


def _proving(job: Job, after: dict[str, int]) -> int:
    """Bytes that the proof takes: whet's own reading and stock transformers' of the whole model side by side, and the
    files that they are read from."""
    dense = sum(info.nbytes for info in job.checkpoint.tensors.values())
    if dense > PROVED:
        return 0
    return dense * (2 if job.storage.stock else 1) + after["total"]


def scoring_memory(job: Job, alone: float) -> int:
    """Peak memory in bytes of finding out what parts lose: hidden states between all blocks, and then a block forward
    and back, the head, or a table whose rows are tried; of a plan that was made also the streams it is measured on.

    alone: how long that may take, as a multiple of what solving does.
    """
    parts = job.anatomy
    vocabulary, width = parts.embedding.shape
    batch = min(BATCH_TOKENS // 2, job.tokens)
    states = 4 * width * min(job.tokens, SCORED_TOKENS) * (len(parts.blocks) + 1)
    head = _AT_HEAD * 4 * min(_LOGITS, vocabulary * batch)
    rows = min(vocabulary, _ROWS)
    table = _PAIR * rows * min(job.tokens, _POSITIONS) + _ROW * rows * width + 12 * vocabulary * width
    block = max(sum(math.prod(linear.shape) for linear in linears) for linears in parts.blocks)
    passing = max(sum(sum(linear.shape) for linear in linears) for linears in parts.blocks)
    moments = max(_moments(job, linears) for linears in parts.blocks)
    # weights and their gradients, two second moments an input, and inputs, outputs and gradients: those of a batch
    # twice, as the graph holds some too, and those that are kept apart
    back = 8 * block + 2 * moments + 4 * passing * (2 * batch + min(job.tokens, SCORED_TOKENS) // 2)
    swaps = {linear.address: [linear] for linear in (*tables(parts), *parts.linears())}
    streams = 4 * width * sum(len(window) for window in affordable(job, swaps, alone)) * (len(swaps) + 1)
    return _BASE_MEMORY + max(states + max(head, table, back), streams)


def check_room(out: Path, needs: dict[str, Any]) -> None:
    """Refuse before the long part where disk or memory will not do. Raises MachineError."""
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not place.is_dir():
        raise UsageError(
            "{out} cannot be made: {place} is a file. Name a folder that is in a folder.", out=out, place=place
        )
    if not os.access(place, os.W_OK):
        raise MachineError(
            "{out} cannot be made: you may not write to {place}. Choose another folder.", out=out, place=place
        )
    free = shutil.disk_usage(place).free
    if free < needs["disk"]:
        raise MachineError(
            "The disk of {out} has {free:.0f} MB free; the lighter model needs {needs:.0f} MB. Free some space or "
            "choose another disk.",
            out=out,
            free=free / 1e6,
            needs=needs["disk"] / 1e6,
        )
    available = available_memory()
    if available is not None and available < needs["memory"]:
        raise MachineError(
            "The run needs about {needs:.1f} GB of memory and {free:.1f} GB are free. Use fewer or shorter windows "
            "(--samples, --window), or a machine with more memory.",
            needs=needs["memory"] / 1e9,
            free=available / 1e9,
        )


def _together(job: Job, block: list[Linear]) -> int:
    """The most weights of a block that are solved together: all that read one input."""
    sizes: dict[str, int] = {}
    for linear in job.chosen(block):
        sizes[linear.reads] = sizes.get(linear.reads, 0) + math.prod(linear.shape)
    return max(sizes.values(), default=0)


def _moments(job: Job, block: list[Linear]) -> int:
    """Bytes of the second moments of one block: one an input."""
    return sum(4 * width**2 for _, width in _inputs(job, block))


def _inputs(job: Job, block: list[Linear]) -> set[tuple[str, int]]:
    """What the linears of a block that are rounded read, and how wide it is."""
    return {(linear.reads, linear.shape[1]) for linear in job.chosen(block)}
