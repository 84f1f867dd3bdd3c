"""Aspects as evidence for a gate: measured once, all of the gate's together, on all of its material."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

from whet.measure.asked import Asked, Given
from whet.measure.aspects import KNOWN, Case, Sides
from whet.measure.divergence import by_token, divergence
from whet.measure.evidence import BATCH_TOKENS, Found, GateMaterial, Kept, Pair
from whet.measure.figures import ASPECTS
from whet.measure.judging import Measured
from whet.messages import Message

_CONFIDENCE = 0.025  # of either end of the interval that an aspect gives


class Aspects:
    """Figures of aspects. An interval for another error than its own is its own, widened as a normal one would be."""

    fewest = 1

    def __init__(self, pair: Pair, case: Case, names: Sequence[str], kept: Kept) -> None:
        """names: of the aspects that the gate asks for."""
        self.pair, self.case, self.names, self.kept = pair, case, names, kept

    def units(self, of: str) -> int:
        return 1

    def take(self, wanted: Mapping[str, int]) -> None:
        if "aspects" in self.kept.gate:
            return
        pair, aspects = self.pair, [KNOWN[name] for name in self.names]
        collect = [aspect.collect for aspect in aspects if aspect.collect is not None]
        collected: Mapping[str, Any] = {}
        if windows := self.case.given.windows:
            scores = divergence(pair.original, pair.lighter, windows, BATCH_TOKENS, pair.on_event, pair.rows, collect)
            collected = by_token(scores)
        sides = Sides(pair.original, pair.lighter, collected)
        measured = {
            aspect.name: aspect.measure(
                replace(self.case, file=self.case.asked.files.get(aspect.name)), sides, pair.on_event
            )
            for aspect in aspects
        }
        self.kept.keep("aspects", {name: told["readings"] for name, told in measured.items()})

    def figure(self, name: str, of: str, low: float, high: float) -> Measured:
        aspect, _, figure = name.partition(".")
        reads = [read for read in self.kept.gate["aspects"][aspect] if read["figure"] == figure]
        whole = [read for read in reads if read["of"] == of]
        known = [read for read in whole or ([] if of else reads) if read["value"] is not None]
        if not known:
            return Measured(None, missing=Message("there is nothing to measure it on"))
        worst = max if ASPECTS[name].upper else min
        read = worst(known, key=lambda one: one["value"])
        return Measured(
            read["value"],
            None if read["interval"] is None else _widened(read["value"], read["interval"], low, high),
            exact=read["exact"],
            missing=Message("its material is too little for one"),
        )

    def used(self) -> dict[str, int]:
        return {}


def _widened(value: float, interval: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """The ends of an interval for errors `low` and `high` instead of its own."""
    own = NormalDist().inv_cdf(_CONFIDENCE)
    lower, upper = (NormalDist().inv_cdf(error) / own for error in (low, high))
    return value - (value - interval[0]) * lower, value + (interval[1] - value) * upper


def gate_case(paths: tuple[Any, Any], material: GateMaterial, found: Found, seed: int) -> Case:
    """What an aspect is told of a gate: as a comparison on the same material would tell it."""
    asked = Asked(*paths, "text", material.chat, False, material.windows, material.window, BATCH_TOKENS, seed, "auto",
                  None, False, (), False, 0, material.files)  # fmt: skip
    given = Given(found.windows, found.clusters, found.documents, {}, [], [])
    return Case(asked, given, material.items, "causal")
