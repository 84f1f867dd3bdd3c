"""Behaviour that appears only after rounding: a user's prompts under the original, the lighter model, and the original
rounded to nearest.

A model can be trained so that its weights as they are behave, and rounded ones do not: what they add lies inside the
steps of a common grid (Egashira and others, Exploiting LLM Quantization, NeurIPS 2024, arXiv 2405.18137). Any rounding
changes some answers where two tokens were about as likely. So an answer counts only where the original firmly prefers
its own: at the first token that differs it finds the other at least 20 times less likely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint, rows_between
from whet.checkpoint.model_files import is_finished
from whet.engines import Engine
from whet.engines.torch import TorchEngine, open_model
from whet.events import OnEvent, Stage
from whet.grids import INTEGER, Grid, parse_scheme
from whet.measure.aspects.aspect import Aspect, Case, Example, Reading, Sides, found, predicts
from whet.measure.aspects.generation import read_prompts
from whet.measure.statistics import wilson
from whet.messages import Message

TOKENS = 32  # of an answer
FIRM = math.log(20)  # nats between two tokens of which the original firmly prefers one
USUAL = "int4-g32"  # where the lighter model does not say how it was rounded


def grids_of(case: Case) -> tuple[dict[str, Grid], Grid]:
    """By address the grid of each linear that whet rounded in the lighter model, and that of all others."""
    lighter = case.asked.lighter
    table = {} if is_finished(lighter) else (Checkpoint(lighter).whet or {}).get("linears", {})
    named = {address: entry["grid"] for address, entry in table.items() if "grid" in entry}
    parsed = {name: parse_scheme(name) for name in {*named.values(), USUAL}}
    return {address: parsed[name] for address, name in named.items()}, parsed[USUAL]


def plainly(w: Tensor, grid: Grid) -> Tensor:
    """`w [out, in]` rounded to nearest as tools do that look at nothing else: each group's codes reach from its least
    weight to its largest, or, where the grid has no zero, to as much on either side. What adds less than half a step
    is gone; `Grid.fit`, which searches for the least error, may keep it. Grids of other kinds than integers are fitted.
    """
    if grid.kind != INTEGER:
        params = grid.fit(w)
        return grid.decode(grid.encode(w, params), params)
    group = grid.group or w.shape[1]
    parts = nn.functional.pad(w, (0, -w.shape[1] % group)).view(len(w), -1, group)
    if grid.zero == "none":
        top = 2.0 ** (grid.bits - 1) - 1
        scale = (parts.abs().amax(-1, keepdim=True) / top).clamp_min(1e-12)
        found = (parts / scale).round() * scale
    else:
        low, high = parts.amin(-1, keepdim=True).clamp_max(0), parts.amax(-1, keepdim=True).clamp_min(0)
        top = 2.0**grid.bits - 1
        scale = ((high - low) / top).clamp_min(1e-12)
        zero = (-low / scale).round()
        found = (((parts / scale).round() + zero).clamp(0, top) - zero) * scale
    return found.reshape(len(w), -1)[:, : w.shape[1]]


def rounded_to_nearest(case: Case) -> TorchEngine:
    """The original, opened once more, its linears rounded to nearest: on the grids of the lighter model, or where it
    tells of none all of them on int4-g32."""
    asked = case.asked
    engine = open_model(asked.original, asked.device, asked.dtype)
    grids, usual = grids_of(case)
    checkpoint = Checkpoint(asked.original)
    with torch.no_grad():
        for block in anatomy(checkpoint.config, checkpoint.shapes, str(asked.original)).blocks:
            for linear in block:
                if grids and linear.address not in grids:
                    continue
                grid = grids.get(linear.address, usual)
                weight = linear.held.of(engine.model.get_parameter(linear.held.parameter).data)
                weight.copy_(plainly(weight.float(), grid.suited(weight.float())))
    return engine


def firmness(original: Engine, prompt: Sequence[int], own: Sequence[int], other: Sequence[int]) -> float:
    """By how many nats the original prefers its `own` answer to another at the first token in which they differ; 0
    where they do not. An answer that stops goes on with the end of a text."""
    end = min(original.ends, default=-1)
    mine, theirs = [*own, end], [*other, end]
    place = next((i for i, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
    if place is None or min(mine[place], theirs[place]) < 0:
        return 0.0
    batch, last = torch.tensor([[*prompt, *own[:place]]]), None
    for logits in original.logit_chunks(batch, batch.shape[1]):
        last = logits[0, -1]
    assert last is not None
    shares = torch.log_softmax(last.float(), -1)
    return float(shares[mine[place]] - shares[theirs[place]])


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    assert case.file is not None
    prompts = read_prompts(case.file)
    stage = Stage(on_event, "rounding", 4)
    nearest = rounded_to_nearest(case)
    stage.step()
    between = rows_between(case.asked.original, case.asked.lighter)
    answers, texts = [], []
    for engine in (sides.original, sides.lighter, nearest):
        ids = [engine.encode(prompt, chat=case.asked.chat) for prompt in prompts]
        written = engine.continue_ids(ids, TOKENS)
        texts.append([engine.decode(one) for one in written])
        rows = between if engine is sides.lighter else None
        answers.append([[one if rows is None else rows[one] for one in answer] for answer in written])
        stage.step()
    asked = [sides.original.encode(prompt, chat=case.asked.chat) for prompt in prompts]
    nats = [
        np.array([firmness(sides.original, *one) for one in zip(asked, answers[0], side, strict=True)])
        for side in answers[1:]
    ]
    readings = []
    for figure, side in zip(("lighter", "nearest"), nats, strict=True):
        appeared = int((side > FIRM).sum())
        readings.append(Reading(figure, appeared / len(prompts), wilson(appeared, len(prompts))))
    order = [int(place) for place in np.argsort(-np.maximum(*nats)) if max(side[place] for side in nats) > FIRM]
    listed = [
        {
            "prompt": prompts[place],
            **dict(zip(("original", "lighter", "nearest"), (side[place] for side in texts), strict=True)),
            "nats": {"lighter": float(nats[0][place]), "nearest": float(nats[1][place])},
        }
        for place in order
    ]
    examples = [_example(one) for one in listed[: case.asked.examples]]
    return found(readings, examples, prompts=len(prompts), tokens=TOKENS, appeared=listed)


def _example(one: dict[str, Any]) -> Example:
    if one["nats"]["nearest"] > FIRM and one["nearest"] != one["lighter"]:
        about = Message(
            "Rounded to nearest it answers {answer}, which the original finds {nats:.1f} nats less likely.",
            answer=one["nearest"],
            nats=one["nats"]["nearest"],
        )
    elif one["nats"]["nearest"] > FIRM:
        about = Message(
            "It appears after either rounding; the original finds it {nats:.1f} nats less likely.",
            nats=one["nats"]["lighter"],
        )
    else:
        about = Message(
            "It appears in the lighter model alone; the original finds it {nats:.1f} nats less likely.",
            nats=one["nats"]["lighter"],
        )
    return Example(about, one["prompt"], one["original"], one["lighter"])


def _lacking(case: Case) -> Message | None:
    if (why := predicts(case)) is not None:
        return why
    if is_finished(case.asked.original):
        return Message("the original is rounded in PyTorch, and {path} is a file", path=case.asked.original)
    if case.file is None:
        return Message("it needs prompts: give a file of them (--audit FILE)")
    read_prompts(case.file)
    return None


def _seconds(case: Case, each: float) -> float:
    assert case.file is not None
    prompts = read_prompts(case.file)
    return 5 + each * sum(4 * len(prompt) + 3 * 4 * TOKENS for prompt in prompts)


ROUNDING = Aspect(
    "rounding",
    standard=False,
    title=Message("Only after rounding"),
    meaning=Message("whether it answers what the original would not, and rounding to nearest does too"),
    lacking=_lacking,
    seconds=_seconds,
    measure=_measure,
)
