"""Sends the streams through the model and rounds every part on the way: embedding, blocks, rest."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whet.apply.agreement import agreement
from whet.apply.block import BlockRounding
from whet.apply.curvature import measure_curvature, metric_of
from whet.apply.job import BATCH_TOKENS, Job
from whet.apply.marginal import marginal_losses
from whet.apply.shards import Shards
from whet.apply.table import round_table
from whet.apply.tune import tune, tuned_file, tuned_tensors
from whet.checkpoint import Checkpoint
from whet.events import OnEvent, Stage
from whet.measure.classes import TASKS, differences, divergences, gathered, kind_of, summarize_answers
from whet.measure.divergence import score_tokens
from whet.measure.vectors import Vectors, pooling, summarize_vectors
from whet.scores import tied_metric
from whet.text import batches
from whet.walk import RoundedCache, RoundedInputs, Untouched, Walk, not_followed, steadied


def solve_through(job: Job, shards: Shards) -> dict[str, Any]:
    """Embedding, blocks, rest, with hidden states flowing; returns the divergence on the verifying windows, and the KL
    of each as `windows`."""
    parts, checkpoint = job.anatomy, job.checkpoint
    solve, verify = batches(job.solve, job.batch), batches(job.verify, BATCH_TOKENS)
    if job.tuned:
        if not tuned_file(shards.run).is_file():
            walk, lighter, head = _solve(job, shards, solve, verify)
            tune(job, shards, walk, solve, verify, lighter, head)
            del walk
        shards.rewrite(tuned_tensors(shards.run))
        solve = []  # all is done; what is left is to verify
    walk, lighter, head = _solve(job, shards, solve, verify)
    if parts.task == "states":
        return _states(walk, verify, lighter, job.source or checkpoint, shards.on_event)
    if parts.task in TASKS:
        return _answers(walk, verify, lighter, job.checkpoint.config, parts.task, shards.on_event)
    if parts.task != "causal":
        return _difference(walk, verify, lighter, shards.on_event)
    original = checkpoint.read((parts.head or parts.embedding).parameter)
    found = _divergence(walk, verify, original, head, job.device, shards.on_event)
    del original
    if job.marginal:
        del walk
        found["marginal"] = marginal_losses(job, shards, lighter)
    return found


def _solve(
    job: Job, shards: Shards, solve: list[Tensor], verify: list[Tensor]
) -> tuple[Walk, Tensor | None, Tensor | None]:
    """Solves what is not solved yet; returns the walk at its end, and the lighter embedding and head if they are."""
    parts, checkpoint, device = job.anatomy, job.checkpoint, job.device
    compute, run = job.compute, shards.run
    metric = None
    if job.blockwise and not_followed(parts) is None:
        measure_curvature(job, run, shards.on_event)
        metric = functools.partial(metric_of, run)
    shards.stage.start()
    table = checkpoint.read(parts.embedding.parameter)
    moment = None
    if parts.tied and parts.embedding.address in job.grids and not shards.finished("embedding"):
        before = Walk(checkpoint, parts, solve, [], table, table, device, run, compute)
        before.go(Untouched())
        moment = tied_metric(_head_moment(before))
    lighter = round_table(shards, "embedding", parts.embedding, [], moment)
    decoded = table if lighter is None else lighter
    follow = job.blockwise or job.asymmetric
    rounded = RoundedInputs(job.inputs), RoundedCache(job.kv)
    walk = Walk(checkpoint, parts, solve, verify, table, decoded, device, run, compute, follow, *rounded)
    del table, decoded
    walk.go(BlockRounding(shards, metric))
    rest = [n for n in parts.other_tensors if n not in (parts.embedding.parameter, parts.dropped)]
    if parts.head is None:
        shards.copy("rest", rest)
        return walk, lighter, lighter
    moment = None
    if parts.head.address in job.grids and not shards.finished("rest"):
        moment = _head_moment(walk)
    head = round_table(shards, "rest", parts.head, [n for n in rest if n != parts.head.parameter], moment)
    return walk, lighter, head


def without_text(job: Job, shards: Shards) -> dict[str, Any]:
    """Nearest rounding without text: no forward pass, one part in memory at a time."""
    parts = job.anatomy
    round_table(shards, "embedding", parts.embedding, [], None)
    blocks = BlockRounding(shards)
    for index, linears in enumerate(parts.blocks):
        blocks.without_text(index, job.chosen(linears))
    rest = [n for n in parts.other_tensors if n not in (parts.embedding.parameter, parts.dropped)]
    if parts.head is None:
        shards.copy("rest", rest)
    else:
        round_table(shards, "rest", parts.head, [n for n in rest if n != parts.head.parameter], None)
    return {}


def _head_moment(walk: Walk) -> Tensor:
    """Second moment `[hidden, hidden]` of what the head reads, over the solving windows, steadied."""
    width = walk.lighter[0].shape[-1]
    total = torch.zeros(width, width, device=walk.lighter[0].device)
    tokens = 0
    for hidden in walk.final():
        x = hidden.reshape(-1, width)
        total.addmm_(x.t(), x)
        tokens += len(x)
    return steadied(total.div_(tokens), tokens)


def _difference(walk: Walk, verify: list[Tensor], table: Tensor | None, on_event: OnEvent) -> dict[str, Any]:
    """As `_divergence`, for models that do not predict the next token: over every answer they give."""
    if not verify:
        return {}
    total = agree = 0.0
    count = 0
    windows: list[float] = []
    stage = Stage(on_event, "verify", len(verify))
    for batch, (mine, theirs) in zip(verify, walk.verified(), strict=True):
        first, second = walk.skeleton.outputs(batch, mine), walk.skeleton.outputs(batch, theirs, table)
        width = first.shape[-1]
        nothing = torch.zeros(first.numel() // width, dtype=torch.int64)[None]
        kl, same, _, _ = score_tokens(first.reshape(1, -1, width), second.reshape(1, -1, width), nothing)
        total, agree, count = total + kl.double().sum().item(), agree + same.sum().item(), count + kl.numel()
        windows += kl.double().reshape(len(batch), -1).mean(1).tolist()
        stage.step()
    return {"kl": total / count, "top1": agree / count, "drift": walk.drift, "windows": windows}


def _answers(
    walk: Walk, verify: list[Tensor], table: Tensor | None, config: Mapping[str, Any], task: str, on_event: OnEvent
) -> dict[str, Any]:
    """As `_divergence`, for models with a class head: `answers` (`measure.classes.summarize_answers`), with `kl` and
    `top1` of classes alone. `windows`: of each its KL, or of scores what they differ by."""
    if not verify:
        return {}
    pairs, numbers, count = [], [], 0
    stage = Stage(on_event, "verify", len(verify))
    for batch, (mine, theirs) in zip(verify, walk.verified(), strict=True):
        pairs.append((walk.skeleton.outputs(batch, mine), walk.skeleton.outputs(batch, theirs, table)))
        numbers.append(range(count, count := count + len(batch)))
        stage.step()
    found = gathered(pairs, numbers)
    kind = kind_of(task, config, found.original.shape[1])
    told = summarize_answers(found, kind, TASKS[task], list(range(count)))
    each = differences(found) if kind == "scores" else divergences(found, kind)[0]
    sums = np.bincount(found.window, weights=np.zeros(len(found.window)) if each is None else each)
    result = {"answers": told, "drift": walk.drift, "windows": (sums / np.bincount(found.window)).tolist()}
    return result if kind == "scores" else {"kl": told["kl"]["mean"], "top1": told["top1"]["mean"], **result}


def _states(
    walk: Walk, verify: list[Tensor], table: Tensor | None, original: Checkpoint, on_event: OnEvent
) -> dict[str, Any]:
    """As `_answers`, for base models: `answers` as `measure.vectors.summarize_vectors`, `windows` the error of each."""
    if not verify:
        return {}
    found, stage = Vectors(pooling(original.path)), Stage(on_event, "verify", len(verify))
    for batch, (mine, theirs) in zip(verify, walk.verified(), strict=True):
        both = walk.skeleton.outputs(batch, mine), walk.skeleton.outputs(batch, theirs, table)
        found.add(*both, range(len(found.windows), len(found.windows) + len(batch)))
        stage.step()
    told = summarize_vectors(found, range(len(found.windows)))
    return {"answers": told, "drift": walk.drift, "windows": found.errors}


def _divergence(
    walk: Walk, verify: list[Tensor], original: Tensor, lighter: Tensor | None, device: str, on_event: OnEvent
) -> dict[str, Any]:
    """KL(original ‖ lighter) in nats per token and top-1 agreement on the verifying windows; {} when there are none."""
    if not verify:
        return {}
    first = original.to(device).float()
    second = first if lighter is None else lighter.to(device)
    stage = Stage(on_event, "verify", len(verify))
    found = agreement(walk.skeleton, verify, walk.verified(), first, second, stage.step)
    return {"kl": found.kl, "top1": found.top1, "drift": walk.drift, "windows": found.windows}
