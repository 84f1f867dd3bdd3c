"""The lighter model with its weights packed in memory (`whet.load(fast=True)`): how far it is from its decoded self,
which all else is judged on, and how fast and small it is beside the original."""

from __future__ import annotations

from typing import Any

from whet.checkpoint.model_files import is_finished
from whet.engines.opening import open_engine
from whet.engines.packed import packing_of, tell_packing
from whet.events import Event, OnEvent, without_plan
from whet.measure.aspects.aspect import Aspect, Case, Reading, Sides, found
from whet.measure.divergence import divergence, estimates, sums
from whet.measure.speed import ROUNDS, footprint, side_by_side
from whet.messages import Message

_WINDOWS = 16  # that tell how far the two are apart


def _lacking(case: Case) -> Message | None:
    if is_finished(case.asked.lighter):
        return Message("its runtime keeps a file packed as it is")
    if case.task not in ("causal", "seq2seq"):
        return Message("it is told of models that write, and these do not")
    return None if case.given.prompt else Message("it is measured with speed, which was left out")


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    asked, prompt = case.asked, case.given.prompt
    memory = [
        footprint(asked.original, prompt, device=asked.device, dtype=asked.dtype).get("peak_bytes"),
        footprint(asked.lighter, prompt, device=asked.device, fast=True, precision=asked.precision).get("peak_bytes"),
    ]
    packing, notes = packing_of(fast=True, packed=False), list[Message]()
    assert packing is not None
    engine = open_engine(asked.lighter, asked.device, packing=packing, precision=asked.precision)

    def keep(event: Event) -> None:
        notes.append(Message.read(event))

    tell_packing(packing, asked.lighter, keep)
    windows = case.given.windows[:_WINDOWS]
    scores = divergence(sides.lighter, engine, windows, asked.batch_tokens, without_plan(on_event))
    apart = estimates(sums(scores), case.given.clusters[: len(windows)])
    speed = side_by_side(sides.original, engine, prompt, on_event=on_event)
    readings = [Reading.estimated(name, apart[name]) for name in ("kl", "top1")]
    for phase in ("prefill", "decode"):
        told = speed[phase]
        own = {which: told[which] for which in ("original", "lighter")}
        readings.append(Reading(f"{phase}_speedup", told["ratio"]["value"], told["ratio"]["spread"], **own))
    if all(memory):
        readings.append(Reading("memory", memory[1] / memory[0], exact=True))  # type: ignore[operator]
    more: dict[str, Any] = {"kernels": dict(packing.kept), "without": dict(packing.without), "windows": len(windows)}
    return found(readings, notes=notes, **more, rounds=ROUNDS, dtype=engine.dtype, peak_bytes=memory)


PACKED = Aspect(
    "packed",
    standard=False,
    title=Message("Packed in memory"),
    meaning=Message("the lighter model with its weights kept packed: speed, memory, and how far from decoded"),
    lacking=_lacking,
    seconds=lambda case, each: 20 + each * _WINDOWS * case.asked.window,
    measure=_measure,
)
