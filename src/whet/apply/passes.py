"""Sends the streams through the model and rounds every part on the way: embedding, blocks, rest."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.apply.block import Solver
from whet.apply.curvature import measure_curvature, metric_of
from whet.apply.marginal import lost_alone
from whet.apply.tune import tune, tuned_file, tuned_tensors
from whet.measure.divergence import score_tokens
from whet.scores import tied_metric
from whet.steps.decide import BATCH_TOKENS, Decision
from whet.text import batches
from whet.walk import BlockStep, Walk, not_followed, steadied


def solve_through(decision: Decision, solver: Solver, run: Path) -> dict[str, Any]:
    """Embedding, blocks, rest, with hidden states flowing; returns the divergence on the verifying windows, and the KL
    of each as `windows`."""
    parts, checkpoint = decision.anatomy, decision.checkpoint
    solve, verify = batches(decision.solve, decision.batch), batches(decision.verify, BATCH_TOKENS)
    if decision.tuned:
        if not tuned_file(run).is_file():
            walk, lighter, head = _solve(decision, solver, run, solve, verify)
            tune(decision, solver, walk, solve, verify, lighter, head, run)
            del walk
        solver.retune(tuned_tensors(run))
        solve = []  # all is done; what is left is to verify
    walk, lighter, head = _solve(decision, solver, run, solve, verify)
    if parts.task != "causal":
        return _difference(walk, verify, lighter)
    found = _divergence(walk, verify, checkpoint.read((parts.head or parts.embedding).parameter), head, decision.device)
    if decision.alone:
        del walk
        found["alone"] = lost_alone(decision, solver, lighter)
    return found


def _solve(
    decision: Decision, solver: Solver, run: Path, solve: list[Tensor], verify: list[Tensor]
) -> tuple[Walk, Tensor | None, Tensor | None]:
    """Solves what is not solved yet; returns the walk at its end, and the lighter embedding and head if they are."""
    parts, checkpoint, device = decision.anatomy, decision.checkpoint, decision.device
    compute = getattr(torch, decision.recipe["compute"])
    table = checkpoint.read(parts.embedding.parameter)
    moment = None
    if parts.tied and parts.embedding.address in decision.grids and not solver.finished("embedding"):
        before = Walk(checkpoint, parts, solve, [], table, table, device, run, compute)
        before.go(_Untouched())
        moment = tied_metric(_head_moment(before))
    lighter = solver.solve_table("embedding", parts.embedding, [], moment)
    decoded = table if lighter is None else lighter
    if decision.blockwise and not_followed(parts) is None:
        measure_curvature(decision, run, solver.stage.on_event)
        solver.metric = functools.partial(metric_of, run)
    follow = decision.blockwise or decision.asymmetric
    walk = Walk(checkpoint, parts, solve, verify, table, decoded, device, run, compute, follow)
    del table, decoded
    walk.go(_Chosen(decision, solver))
    rest = [n for n in parts.other_tensors if n not in (parts.embedding.parameter, parts.dropped)]
    if parts.head is None:
        solver.copy_rest("rest", rest)
        return walk, lighter, lighter
    moment = None
    if parts.head.address in decision.grids and not solver.finished("rest"):
        moment = _head_moment(walk)
    head = solver.solve_table("rest", parts.head, [n for n in rest if n != parts.head.parameter], moment)
    return walk, lighter, head


def round_only(decision: Decision, solver: Solver) -> dict[str, Any]:
    """Nearest rounding without text: no forward pass, one part in memory at a time."""
    parts = decision.anatomy
    solver.solve_table("embedding", parts.embedding, [], None)
    for index, linears in enumerate(parts.blocks):
        solver.round_block(index, decision.chosen(linears))
    rest = [n for n in parts.other_tensors if n not in (parts.embedding.parameter, parts.dropped)]
    if parts.head is None:
        solver.copy_rest("rest", rest)
    else:
        solver.solve_table("rest", parts.head, [n for n in rest if n != parts.head.parameter], None)
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


class _Chosen:
    """Shows the solver those linears of a block that have a grid; the others are copied with the rest of the block."""

    def __init__(self, decision: Decision, solver: Solver) -> None:
        self.decision, self.solver = decision, solver

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """The lighter weights of what was chosen."""
        linears = self.decision.chosen(step.linears)
        if not linears:
            self.solver.round_block(step.index, [])
            return {}
        return self.solver.visit(dataclasses.replace(step, linears=linears))


class _Untouched:
    """A visitor that leaves every block as it is."""

    def visit(self, step: Any) -> dict[str, Tensor]:
        """Nothing is replaced."""
        return {}


def _difference(walk: Walk, verify: list[Tensor], table: Tensor | None) -> dict[str, Any]:
    """As `_divergence`, for models that do not predict the next token: over every answer they give."""
    if not verify:
        return {}
    total = agree = 0.0
    count = 0
    windows: list[float] = []
    for batch, (mine, theirs) in zip(verify, walk.verified(), strict=True):
        first, second = walk.skeleton.outputs(batch, mine), walk.skeleton.outputs(batch, theirs, table)
        width = first.shape[-1]
        nothing = torch.zeros(first.numel() // width, dtype=torch.int64)[None]
        kl, same, _, _ = score_tokens(first.reshape(1, -1, width), second.reshape(1, -1, width), nothing)
        total, agree, count = total + kl.double().sum().item(), agree + same.sum().item(), count + kl.numel()
        windows += kl.double().reshape(len(batch), -1).mean(1).tolist()
    return {"kl": total / count, "top1": agree / count, "drift": walk.drift, "windows": windows}


def _divergence(
    walk: Walk, verify: list[Tensor], original: Tensor, lighter: Tensor | None, device: str
) -> dict[str, Any]:
    """KL(original ‖ lighter) in nats per token and top-1 agreement on the verifying windows; {} when there are none."""
    if not verify:
        return {}
    total = agree = 0.0
    count = 0
    windows: list[float] = []
    first = original.to(device).float()
    second = first if lighter is None else lighter.to(device)
    for batch, (mine, theirs) in zip(verify, walk.verified(), strict=True):
        for row in range(len(batch)):
            before, after = walk.skeleton.next_logits(mine[row], first), walk.skeleton.next_logits(theirs[row], second)
            kl, same, _, _ = score_tokens(before, after, batch[row, 1:][None])
            total, agree, count = total + kl.double().sum().item(), agree + same.sum().item(), count + kl.numel()
            windows.append(kl.double().mean().item())
    return {"kl": total / count, "top1": agree / count, "drift": walk.drift, "windows": windows}
