"""The proof of a pruned folder: loaded anew it computes what the blocks computed before they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import anatomy
from whet.apply.job import Job
from whet.checkpoint import Checkpoint, load_as_others
from whet.engines.torch import cached_outputs, outputs
from whet.errors import GateError
from whet.steps.proof import PROVED
from whet.walk import Untouched, Walk
from whet.walk.skeleton import Skeleton

# Of the largest logit, how far two ways to compute it in float32 are apart at the most.
_TOLERANCE = 1e-4


def prove_pruned(
    out: Path, job: Job, skeleton: Skeleton, tokens: Tensor, hidden: Tensor, head: Tensor | None, exact: bool
) -> dict[str, Any]:
    """Load the folder `out` and raise GateError unless it computes what was computed before.

    hidden: what the last block gave for `tokens [b, L]` with zeros in place of what went `[b, L, hidden]`, of the
    model of `skeleton`, and `head` the table that gives logits of them, in a causal one. exact: whether that is what is
    left; of experts it is not, as others take a token that went to those that are gone. Models under 1 GiB are loaded
    whole by transformers, and their cached generation is compared with uncached; larger ones block by block.
    """
    written = Checkpoint(out)
    row, tokens = hidden[:1], tokens[:1]
    result: dict[str, Any] = {}
    before = _logits(skeleton, tokens, row, head)
    if written.nbytes * 4 // written.dtype.itemsize > PROVED:
        after = streamed(written, job, tokens)
        result["loaded"] = "block by block"
    else:
        model = load_as_others(written, torch.float32, job.device)
        with torch.no_grad():
            after = outputs(model, tokens).float()
            result["loaded"] = "whole"
            cached = cached_outputs(model, tokens) if job.anatomy.task == "causal" else None
        if cached is not None:
            gap = (cached[:, -1].float() - after[:, -1]).abs().max().item()
            agree(out, "generation with a cache and without", gap, after)
            result["cached against uncached"] = gap
    if not torch.isfinite(after).all():
        raise GateError("{out}: the smaller model computes values that are not finite on its own text.", out=out)
    if exact:
        gap = (after.cpu() - before.cpu()).abs().max().item()
        agree(out, "what was written and what was computed", gap, before)
        result["before against after"] = gap
    return result


def agree(out: Path, what: str, gap: float, logits: Tensor) -> None:
    """Raises GateError where two ways to compute `logits` are further apart than their rounding."""
    if not gap <= _TOLERANCE * max(1.0, logits.abs().max().item()):  # not a number is no agreement either
        raise GateError(
            "{out}: {what} differ by {gap:.3g} in the logits. This is a defect of whet, or the family does something "
            "with its blocks that whet does not know; please report it.",
            out=out,
            what=what,
            gap=gap,
        )


def _logits(skeleton: Skeleton, tokens: Tensor, hidden: Tensor, head: Tensor | None) -> Tensor:
    """What the model makes of hidden states after its last block."""
    with torch.no_grad():
        states = skeleton.load_norm()(hidden)
        if head is None:
            return skeleton.outputs(tokens, states).float()
        return skeleton.cap(states @ head.to(states.device).float().t())


def streamed(written: Checkpoint, job: Job, tokens: Tensor) -> Tensor:
    """Logits of the folder that was written, one block in memory at a time."""
    family = job.anatomy.family
    parts = anatomy(written.config, written.shapes, str(written.path), None if family.entries else family)
    table = written.read(parts.embedding.parameter)
    walk = Walk(written, parts, [tokens], [], table, table, job.device)
    walk.go(Untouched())
    head = written.read((parts.head or parts.embedding).parameter).to(job.device).float()
    (states,) = walk.final()
    return walk.skeleton.cap(states @ head.t())
