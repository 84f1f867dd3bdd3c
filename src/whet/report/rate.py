"""What the page shows of a plan against theory and against measurement: bits and divergence, round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whet.report.numbers import figure, percent, size, times
from whet.report.plots import Mark, Point, RowOf, power, rate_plot, rows_plot
from whet.report.scales import fitted
from whet.report.tables import Row, Table, two_lines
from whet.report.words import Words

_DEPTH, _LEAST = 1e4, 1e-9  # the plot reaches so far below its highest KL, and never under what fp32 can tell from 0
_TENSORS = ("linears", "embedding", "head", "other", "adapter")  # what of a folder's bytes the bits of a plan count


def parameters(plan: Mapping[str, Any]) -> float:
    """How many parameters the model has, from any point that tells bytes and bits; 0 where none does."""
    points = [plan.get("predicted") or {}, *(plan.get("frontier") or ()), *(plan.get("uniform") or ())]
    return next((8 * p["bytes"] / p["bits"] for p in points if p.get("bytes") and p.get("bits")), 0.0)


def rate(facts: Mapping[str, Any], say: Words) -> dict[str, Any] | None:
    """The rate-distortion plot, how its line is anchored, and its numbers; None without points of a plan."""
    plan = facts.get("plan") or {}
    frontier = [
        Point(p["bits"], p["kl"], "dot frontier", say("rate.frontier.name"))
        for p in sorted(plan.get("frontier") or (), key=lambda p: p["bits"])
    ]
    every_uniform = plan.get("uniform") or []
    uniform = [
        Point(p["bits"], p["kl"], "square uniform", _uniform_name(p, say), p["scheme"])
        for p in best_uniform(every_uniform)
    ]
    if not frontier and not uniform:
        return None
    count = parameters(plan)
    chosen = [*_measured(facts, count, say), *_planned(plan, say)]
    every = [*chosen, *uniform, *frontier]
    table = Table(say("rate.table"), [say("point"), say("bits.head"), say("bytes"), say("kl")])
    for point in every:
        table.rows.append(Row(point.name, [figure(point.bits), size(point.bits * count / 8), figure(point.kl)]))
    least = max(max(point.kl for point in every) / _DEPTH, _LEAST)
    least = min([least, *(point.kl for point in chosen if point.kl > 0)])
    drawn = [point for point in every if point.kl >= least]
    notes = []
    if len(uniform) < len(every_uniform):
        notes.append(say("rate.best", count=f"{len(every_uniform):,}"))
    if len(drawn) < len(every):
        notes.append(say("rate.dropped", least=figure(least, 2)))
    found: dict[str, Any] = {"table": table, "plot": None, "anchor": "", "note": " ".join(notes)}
    if not drawn:
        return found
    line = [point for point in frontier if point in drawn]
    anchor = anchor_of([point for point in (*line, *uniform) if point in drawn])
    if anchor:
        found["anchor"] = say("rate.anchor", name=anchor.name, bits=figure(anchor.bits))
    bits = [point.bits for point in every]
    counts = {"frontier": len(frontier), "uniform": len(uniform), "measured": len(chosen)}
    found["plot"] = rate_plot(
        f"rate-{say.language}",
        say("rate.plot"),
        say("rate.desc", **counts, low=figure(min(bits), 2), high=figure(max(bits), 2)),
        drawn,
        line,
        anchor.kl * 4**anchor.bits if anchor else None,
        (fitted(point.bits for point in drawn), fitted((point.kl for point in drawn), log=True)),
        (say("rate.x"), say("rate.y")),
        count,
    )
    kinds = {"measured": "diamond measured", "planned": "diamond planned", "frontier": "line dot frontier"}
    kinds |= {"uniform": "square uniform", "bound": "line bound"}
    there = {point.shape.split()[-1] for point in drawn} | ({"bound"} if anchor else set())
    found["legend"] = [{"text": say(f"rate.{name}"), "css": css} for name, css in kinds.items() if name in there]
    return found


def best_uniform(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each quarter of a bit the uniform choice nearest to the bound, ascending, without those another one beats."""
    best: dict[int, Mapping[str, Any]] = {}
    for point in sorted(points, key=lambda p: p["kl"] * 4 ** p["bits"]):
        best.setdefault(round(4 * point["bits"]), point)
    found: list[Mapping[str, Any]] = []
    for _, point in sorted(best.items()):
        if not found or point["kl"] < found[-1]["kl"]:
            found.append(point)
    return found


def _planned(plan: Mapping[str, Any], say: Words) -> list[Point]:
    predicted = plan.get("predicted") or {}
    if predicted.get("kl") is None:
        return []
    return [
        Point(predicted["bits"], predicted["kl"], "diamond planned", say("rate.planned"), say("rate.planned.label"))
    ]


def anchor_of(points: Sequence[Point]) -> Point | None:
    """The point that a line kl = c * 4^-bits goes through when no other point lies below that line."""
    return min(points, key=lambda point: point.kl * 4**point.bits, default=None)


def _uniform_name(point: Mapping[str, Any], say: Words) -> str:
    embed = point.get("embed")
    if embed in (None, point["scheme"]):
        return str(point["scheme"])
    return say("rate.uniform.name", scheme=point["scheme"], embed=say("keep") if embed == "keep" else embed)


def _measured(facts: Mapping[str, Any], count: float, say: Words) -> list[Point]:
    """The comparison's point and the last round's, where the number of parameters tells their bits."""
    found = []
    compare, rounds = facts.get("compare"), (facts.get("plan") or {}).get("measured") or []
    shape, label = "diamond measured", say("measured.word")
    if compare and count and compare["divergence"]["kl"]:
        tensors = sum(compare["size"]["lighter"].get(part, 0) for part in _TENSORS)
        kl = compare["divergence"]["kl"]["mean"]
        found.append(Point(8 * tensors / count, kl, shape, say("rate.measured.report"), label))
    for number, entry in list(enumerate(rounds, 1))[::-1] if count else ():
        name = say("rate.measured.verify", round=number)
        found.append(Point(8 * entry["bytes"] / count, entry["measured_kl"], shape, name, label))
    return found


def rounds(facts: Mapping[str, Any], say: Words) -> dict[str, Any] | None:
    """Predicted against measured KL, one row a refinement round; None where nothing was measured."""
    plan, compare = facts.get("plan") or {}, facts.get("compare")
    entries = plan.get("measured") or []
    if not entries:
        return None
    head = [say("round.head"), say("bytes"), say("predicted"), say("measured.kl"), say("measured.over"), say("top1")]
    table = Table(say("rounds.table"), [*head, say("weakest")], wide=True)
    rows = []
    for number, entry in enumerate(entries, 1):
        predicted, kl = entry["predicted_kl"], entry["measured_kl"]
        kept = entry.get("retention") or {}
        skill = min(kept, key=lambda name: kept[name], default=None)
        weakest = two_lines(percent(kept[skill]), skill) if skill else "–"
        over = times(kl / predicted) if predicted > 0 else "–"
        cells = [size(entry["bytes"]), figure(predicted), figure(kl), over, percent(entry.get("top1")), weakest]
        label = say("round.trial" if entry.get("trial") else "round", number=number)
        table.rows.append(Row(label, cells))
        rows.append((label, predicted, kl, over))
    if compare and compare["divergence"]["kl"]:
        before, kl = entries[-1]["predicted_kl"], compare["divergence"]["kl"]["mean"]
        over = times(kl / before) if before > 0 else "–"
        top1 = percent(compare["divergence"]["top1"]["mean"])
        table.rows.append(Row(say("round.report"), ["", figure(before), figure(kl), over, top1, ""]))
        rows.append((say("round.report"), before, kl, over))
    return {"plot": _rounds_plot(rows, say), "table": table, "note": say("round.note") if compare else ""}


def _rounds_plot(rows: Sequence[tuple[str, float, float, str]], say: Words) -> str | None:
    if min(min(predicted, kl) for _, predicted, kl, _ in rows) <= 0:
        return None  # no place on a logarithmic axis; the table has it
    axis = fitted((value for _, *both, _ in rows for value in both), log=True)
    drawn, said = [], []
    for label, predicted, kl, over in rows:
        words = [f"{say('predicted.word')} {figure(predicted)}", f"{say('measured.word')} {figure(kl)}"]
        said.append(f"{label}: {', '.join(words)}")
        marks = [Mark(predicted, "dot predicted", words[0]), Mark(kl, "diamond measured", words[1])]
        drawn.append(RowOf(label, over, (min(predicted, kl), max(predicted, kl)), marks))
    ticks = [(value, power(value)) for value in axis.ticks(6)]
    description = say("rounds.desc", list="; ".join(said))
    return rows_plot(
        f"rounds-{say.language}", say("rounds.plot"), description, axis, drawn, ticks, heading=say("measured.over")
    )
