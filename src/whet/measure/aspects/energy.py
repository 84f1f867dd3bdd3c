"""What a token costs: joules, carbon and money, of prefill and of decode, both models taking turns.

Reading a prompt and going on from it are told apart by doing the first alone: decoding takes what both take together
less what reading takes. A ratio is the median over rounds in which both models go one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch

from whet.engines import Engine
from whet.events import OnEvent, Stage
from whet.measure.aspects.aspect import Aspect, Case, Reading, Sides, found
from whet.measure.costs import Costs
from whet.measure.meters import Meter, open_meter, repeats
from whet.measure.speed import DECODE_TOKENS
from whet.measure.statistics import median_interval
from whet.messages import Message

ROUNDS = 6  # the fewest that give the median an interval
_JOULES_A_KWH = 3.6e6
Phases = Mapping[str, Sequence[float]]


def _lacking(case: Case) -> Message | None:
    if case.task not in ("causal", "seq2seq"):
        return Message("it is told of models that write, and these do not")
    return None if case.given.prompt else Message("it is measured with speed, which was left out")


def take_turns(meter: Meter, engines: Sequence[Engine], prompt: Sequence[int], on_event: OnEvent) -> list[Phases]:
    """Of each engine, for every round: joules a token of prefill and of decode, and seconds a token of decode."""
    meter.rest()
    times = [engine.time(prompt, DECODE_TOKENS) for engine in engines]  # warms up, too
    reads = [repeats(meter, one.prefill_seconds) for one in times]
    whole = [repeats(meter, one.prefill_seconds + one.decode_seconds) for one in times]
    told: list[dict[str, list[float]]] = [{"prefill": [], "decode": [], "seconds": []} for _ in engines]
    stage = Stage(on_event, "energy", ROUNDS)
    for number in range(ROUNDS):
        for which in (0, 1) if number % 2 else (1, 0):
            engine, seconds = engines[which], list[float]()

            def both(engine: Engine = engine, which: int = which, seconds: list[float] = seconds) -> None:
                for _ in range(whole[which]):
                    seconds.append(engine.time(prompt, DECODE_TOKENS).decode_seconds / DECODE_TOKENS)

            def reading(engine: Engine = engine, which: int = which) -> None:
                for _ in range(reads[which]):
                    engine.time(prompt, 0)

            prefill = meter.joules(reading) / reads[which]
            decode = max(0.0, meter.joules(both) / whole[which] - prefill)
            told[which]["prefill"].append(prefill / len(prompt))
            told[which]["decode"].append(decode / DECODE_TOKENS)
            told[which]["seconds"].append(median(seconds))
        stage.step()
    return list(told)


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    costs = case.asked.costs
    device = str(getattr(sides.original, "device", "cpu"))
    meter = open_meter(device, costs.watts)
    told = take_turns(meter, (sides.original, sides.lighter), case.given.prompt, on_event)
    readings, notes = [], [Message("Energy is {method}.", method=meter.method)]
    for phase in ("prefill", "decode"):
        original, lighter = (one[phase] for one in told)
        ends = median_interval(lighter)
        before, after = median(original), median(lighter)
        readings.append(Reading("joules_per_token", after, ends, phase, before, after))
        ratios = [b / a for a, b in zip(original, lighter, strict=True) if a > 0]
        if len(ratios) == len(original):
            readings.append(Reading("ratio", median(ratios), median_interval(ratios), of=phase))
        else:
            notes.append(Message("The counter did not move while the original did {phase}: no ratio.", phase=phase))
    readings += _carbon(told, costs)
    readings += _money(told, costs)
    more: dict[str, Any] = {"method": meter.method, "measured": meter.measured, "idle_watts": meter.idle}
    paid = pay_back(median(told[0]["seconds"]), median(told[1]["seconds"]), costs)
    if paid is not None:
        more["pay_back_tokens"] = paid[0]
        notes.append(paid[1])
    return found(readings, notes=notes, **more, rounds=ROUNDS, threads=torch.get_num_threads(), batch=1)


def _carbon(told: Sequence[Phases], costs: Costs) -> list[Reading]:
    """Grams of CO2 for a million decoded tokens."""
    grams = [median(one["decode"]) * 1e6 / _JOULES_A_KWH * costs.grams_a_kwh for one in told]
    ends = median_interval([joules * 1e6 / _JOULES_A_KWH * costs.grams_a_kwh for joules in told[1]["decode"]])
    return [Reading("grams_per_million", grams[1], ends, original=grams[0], lighter=grams[1])]


def _money(told: Sequence[Phases], costs: Costs) -> list[Reading]:
    """The price of a million decoded tokens, one sequence at a time; none where no price was given."""
    if costs.price_an_hour is None:
        return []
    prices = [[seconds * 1e6 * costs.price_an_hour / 3600 for seconds in one["seconds"]] for one in told]
    middle = [median(one) for one in prices]
    ends = median_interval(prices[1])
    return [Reading("price_per_million", middle[1], ends, original=middle[0], lighter=middle[1])]


def pay_back(original: float, lighter: float, costs: Costs) -> tuple[float | None, Message] | None:
    """After how many decoded tokens making the lighter model has paid for itself, in a sentence; None where it is not
    known what an hour costs or how many it took. original, lighter: seconds a decoded token."""
    if costs.price_an_hour is None or costs.hours is None:
        return None
    saved = (original - lighter) / 3600 * costs.price_an_hour
    if saved <= 0:
        return None, Message("The lighter model decodes no faster here, so at a price by the hour it saves nothing.")
    tokens = costs.price_an_hour * costs.hours / saved
    return tokens, Message("Making it has paid for itself after {tokens:,.0f} decoded tokens.", tokens=tokens)


ENERGY = Aspect(
    "energy",
    standard=False,
    title=Message("Energy and cost"),
    meaning=Message("joules, carbon and money for each token, prefill and decode apart"),
    lacking=_lacking,
    seconds=lambda case, each: 2 * (ROUNDS + 1) * 0.9,
    measure=_measure,
)
