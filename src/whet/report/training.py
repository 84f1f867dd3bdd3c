"""The curve of a folder's training: what text that was kept out of it loses, by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whet.report.numbers import figure
from whet.report.plots import curve_plot
from whet.report.words import Words


def curve(facts: Mapping[str, Any], say: Words) -> dict[str, Any] | None:
    """A sentence and the plot of the last training in the folder's lineage; None without one that was looked at twice,
    or with a loss that is not above 0."""
    lineage = (facts.get("lighter") or {}).get("lineage") or ()
    found = [held_out for one in lineage if (held_out := (one.get("training") or {}).get("held_out"))]
    points = [(float(step), float(loss)) for step, loss in (found[-1].get("curve") or ())] if found else []
    if len(points) < 2 or min(loss for _, loss in points) <= 0:
        return None
    last = found[-1]
    lede = say(
        "training.lede" if last["helped"] else "training.chance",
        start=figure(last["start"]),
        best=figure(last["best"]),
        step=f"{last['step']:,}",
    )
    labels = (say("training.steps"), say("training.loss"))
    best = last["step"] if last["helped"] else 0
    return {
        "lede": lede,
        "plot": curve_plot(f"training-plot-{say.language}", say("training.plot"), lede, points, best, labels),
    }
