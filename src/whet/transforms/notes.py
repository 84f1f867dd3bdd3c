"""Notes on transforms: what was folded in, what `auto` found, and what it cannot judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from whet.apply.job import Job
from whet.errors import UsageError
from whet.measure.classes import TASKS, kind_of, labels_of
from whet.messages import Message, listed
from whet.quantize import find_transform


def folded_in(kind: str, found: Mapping[str, Mapping[str, Any]], gap: float | None) -> Message:
    """What was folded in, in a sentence."""
    counts: dict[str, int] = {}
    for told in found.values():
        counts[told["transform"]] = counts.get(told["transform"], 0) + 1
    parts = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    shares = [told["loss"] for told in found.values() if told.get("loss", 0) > 0]
    clauses = [
        Message("transform {kind}: of {count} groups of linears {parts}", kind=kind, count=len(found), parts=parts)
    ]
    if shares:
        judge = (
            Message("the solver, on the verifying text,")
            if find_transform(kind).judged
            else Message("rounding to nearest")
        )
        clauses.append(
            Message(
                "{judge} loses {mean:.3f} of what it lost before, linear by linear (geometric mean)",
                judge=judge,
                mean=math.exp(math.fsum(map(math.log, shares)) / len(shares)),
            )
        )
    if gap is not None:
        clauses.append(Message("before any rounding, KL to the original is {gap:.1e} nats per token", gap=gap))
    return listed(clauses, "; ")


def judged_by_group(judged: Mapping[str, Any], kept: int) -> Message:
    groups, why = judged["groups"], judged["why"]
    if why is not None:
        return Message(
            "transform auto, group by group: judged linear by linear alone, because {why}", why=Message.read(why)
        )
    if not kept:
        return Message(
            "transform auto, group by group: none of {count} groups loses less with a transform; none is kept",
            count=len(groups),
        )
    return Message(
        "transform auto, group by group: {kept} of {count} groups lose less with a transform where nothing else is "
        "rounded, together {share:.3f} of their KL without, on {tokens} tokens",
        kept=kept,
        count=len(groups),
        share=judged["share"],
        tokens=judged["tokens"],
    )


def judged_whole(kl: Mapping[str, float], solver: str) -> Message:
    return Message(
        "transform auto, the whole: rounded throughout with {solver}, KL on the verifying text is {after:.4g} nats per "
        "token with these transforms and {before:.4g} without, a difference with a standard error of {noise:.2g}: "
        "{result}",
        solver=solver,
        after=kl["with"],
        before=kl["without"],
        noise=kl["noise"],
        result=Message("they stay") if kl["stays"] else Message("none is kept"),
    )


def check_judged(job: Job) -> None:
    """Raises UsageError where a transform is chosen by KL and the model gives scores, which have none."""
    config = job.checkpoint.config
    task = job.anatomy.task
    if job.folding.judged and task in TASKS and kind_of(task, config, labels_of(config)) in ("scores", "vectors"):
        raise UsageError(
            "--transform {kind} is judged by the KL of predictions, and {model} gives scores or states. Name a "
            "transform: {known}.",
            kind=job.transform,
            model=job.name,
            known="smooth, awq, rotate",
        )
