"""What the page shows of a compare result, as tables, plots and lists in one language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from whet.measure.figures import ASPECTS, LIMITS
from whet.report.aspects import label, shown
from whet.report.findings import weakest
from whet.report.numbers import figure, interval, percent, size, times, with_error
from whet.report.plots import Mark, RowOf, bars, rows_plot
from whet.report.scales import Axis, fitted
from whet.report.tables import Row, Table, two_lines, verdict_badge
from whet.report.words import Words

PARTS = ("linears", "embedding", "head", "other", "adapter", "tokenizer")


def key_figures(compare: Mapping[str, Any], say: Words) -> list[dict[str, str]]:
    """The few figures under the title: label, value, what it is of."""
    measured, sizes = compare["divergence"], compare["size"]
    before, after = sizes["original"]["total"], sizes["lighter"]["total"]
    share = say("key.size.of", share=percent(after / before))
    found = [{"label": say("key.size"), "value": f"{size(before)} → {size(after)}", "of": share}]
    if "answers" in measured:
        of = say(f"answers.{measured['of']}", count=f"{measured['answers']:,}")
        found += [{"label": label, "value": value, "of": of} for label, value, _ in _answers(measured, say)]
    else:
        kl = with_error(measured["kl"]["mean"], measured["kl"]["standard_error"])
        tokens = say("key.top1.of", tokens=f"{measured['tokens']:,}")
        found.append({"label": say("key.kl"), "value": kl, "of": say("key.kl.of")})
        found.append({"label": say("key.top1"), "value": percent(measured["top1"]["mean"]), "of": tokens})
    skill = weakest(compare)
    if skill:
        kept = percent(skill["retention"]["value"])
        found.append({"label": say("key.weakest"), "value": kept, "of": skill["skill"]})
    return found


def limits(compare: Mapping[str, Any], say: Words) -> Table:
    """One row a limit; retention, judged skill by skill, is one row here and a column of the table of skills."""
    table = Table(say("limits.table"), [say("limit"), say("measured"), say("interval"), say("verdict")], wide=True)
    for entry in compare["judgements"]:
        if entry["limit"] != "min_retention":
            table.rows.append(_limit(entry, say))
    judged = [entry for entry in compare["judgements"] if entry["limit"] == "min_retention"]
    if judged:
        verdicts = {entry["verdict"] for entry in judged}
        worst = next(v for v in ("fail", "inconclusive", "pass", "not judged") if v in verdicts)
        kept = sum(entry["verdict"] == "pass" for entry in judged)
        shown = say("retention.all" if kept == len(judged) else "retention.most", kept=kept, count=len(judged))
        others = ", ".join(entry["of"] for entry in judged if entry["verdict"] not in ("pass", "not judged"))
        name = say("min_retention", at=percent(judged[0]["at"], 0))
        table.rows.append(Row(name, [two_lines(shown, others, wraps=True), "", _badge(worst, say)]))
    return table


def _limit(entry: Mapping[str, Any], say: Words) -> Row:
    limit, value = entry["limit"], entry["value"]
    share = limit in ("min_top1", "min_order", "min_neighbours") or LIMITS[limit].unit == "share"
    ratio = limit == "max_ppl_ratio"
    at = percent(entry["at"], 0) if share else f"{entry['at']:g}"
    digits = 5 if ratio else 3
    if limit in ASPECTS:
        side = say("at_most" if LIMITS[limit].upper else "at_least", at=at)
        name, told = f"{label(LIMITS[limit], entry['of'], say)}, {side}", shown(LIMITS[limit], value)
    else:
        name = say(limit, at=at) if limit in _LIMITS else f"{limit} {at}"
        told = percent(value) if share else times(value) if limit == "min_shrink" else figure(value, digits)
    return Row(name, [told, interval(entry["interval"], share, digits), _badge(entry["verdict"], say)])


_OF_STATES = ("max_error", "min_cosine", "min_neighbours")
_LIMITS = ("max_kl", "min_top1", "max_ppl_ratio", "max_difference", "min_order", *_OF_STATES, "min_shrink")


def _badge(verdict: str, say: Words) -> str:
    return verdict_badge(verdict, say(f"verdict.{verdict}"))


def quality(compare: Mapping[str, Any], say: Words) -> dict[str, Any]:
    """Size by part, the divergence and its percentiles, the harness's tasks where there are any."""
    text = compare["text"]
    lede = say(
        "quality.lede",
        tokens=f"{text['tokens']:,}",
        windows=f"{text['windows']:,}",
        documents=f"{text['documents_used']:,}",
        clustered=say.known(f"clustered.{text['clustered_by']}", text["clustered_by"]),
    )
    return {
        "lede": lede + (f" {say('text.report')}" if text["part"] == "report" else ""),
        "plot": _size_plot(compare["size"], say),
        "sizes": _size_table(compare["size"], say),
        "divergence": _divergence(compare["divergence"], say),
        "percentiles": _percentiles(compare["divergence"], say),
        "tasks": _tasks(compare["tasks"], say),
    }


def _parts(sizes: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """(part, original, lighter) with what no part holds as `rest`, so that the parts sum to the whole."""
    before, after = sizes["original"], sizes["lighter"]
    rests = [whole["total"] - sum(whole.get(name, 0) for name in PARTS) for whole in (before, after)]
    parts = [(name, before.get(name, 0), after.get(name, 0)) for name in PARTS]
    return [part for part in [*parts, ("rest", rests[0], rests[1])] if part[1] or part[2]]


def _size_plot(sizes: Mapping[str, Any], say: Words) -> str:
    parts = _parts(sizes)
    totals = {"before": size(sizes["original"]["total"]), "after": size(sizes["lighter"]["total"])}
    rows = [
        (f"{say('original')}: {totals['before']}", [(say(f"size.{n}"), f"part-{n}", count) for n, count, _ in parts]),
        (f"{say('lighter')}: {totals['after']}", [(say(f"size.{n}"), f"part-{n}", count) for n, _, count in parts]),
    ]
    return bars(f"sizes-{say.language}", say("sizes"), say("sizes.desc", **totals), rows)


def _size_table(sizes: Mapping[str, Any], say: Words) -> Table:
    table = Table(say("sizes"), [say("part"), say("original"), say("lighter"), say("ratio")])
    whole = ("total", sizes["original"]["total"], sizes["lighter"]["total"])
    for name, before, after in [*_parts(sizes), whole]:
        label = say("total") if name == "total" else say(f"size.{name}")
        mark = "" if name == "total" else f"part-{name}"
        # what whet.json and a page add to a few kilobytes of other files is no ratio of the model's
        ratio = "" if name == "rest" or not before else f"{after / before:.3f}"
        table.rows.append(Row(label, [size(before), size(after), ratio], mark))
    return table


def _divergence(measured: Mapping[str, Any], say: Words) -> Table:
    table = Table(say("divergence"), [say("figure"), say("value"), say("interval")])
    if "answers" in measured:
        table.rows = [Row(label, [value, ends]) for label, value, ends in _answers(measured, say)]
        return table
    kl, top1, perplexity = measured["kl"], measured["top1"], measured["perplexity"]
    ratio = perplexity["ratio"]
    table.rows = [
        Row(say("kl"), [with_error(kl["mean"], kl["standard_error"]), interval(kl["interval"])]),
        Row(say("top1"), [percent(top1["mean"]), interval(top1["interval"], True)]),
        Row(say("perplexity.original"), [figure(perplexity["original"], 4), ""]),
        Row(say("perplexity.lighter"), [figure(perplexity["lighter"], 4), ""]),
        Row(say("perplexity.ratio"), [figure(ratio["value"], 5), interval(ratio["interval"], digits=5)]),
    ]
    return table


def _answers(measured: Mapping[str, Any], say: Words) -> list[tuple[str, str, str]]:
    """What a model with a class head kept: each figure's label, value and interval; of what nothing tells, a dash."""
    if measured["kind"] == "vectors":
        rows = []
        for name in ("error", "cosine", "neighbours"):
            told, part = measured[name], name == "neighbours"
            shown = (
                ("–", "")
                if told is None
                else (
                    percent(told["mean"]) if part else with_error(told["mean"], told["standard_error"]),
                    interval(told["interval"], part),
                )
            )
            rows.append((say(f"vectors.{name}"), *shown))
        return rows
    if measured["kind"] == "scores":
        mean, share = measured["difference"], measured["order"]
        labels = say("scores.difference"), say("scores.order")
    else:
        mean, share = measured["kl"], measured["top1"]
        labels = say("classes.kl"), say("classes.top1")
    first = (
        ("–", "") if mean is None else (with_error(mean["mean"], mean["standard_error"]), interval(mean["interval"]))
    )
    second = ("–", "") if share is None else (percent(share["mean"]), interval(share["interval"], True))
    return [(labels[0], *first), (labels[1], *second)]


def _percentiles(measured: Mapping[str, Any], say: Words) -> Table | None:
    if measured["kl"] is None:
        return None
    answers = "answers" in measured
    table = Table(say("percentiles.answers" if answers else "percentiles"), [say("share"), "KL"])
    for name, value in measured["kl"]["percentiles"].items():
        table.rows.append(Row(say("max") if name == "max" else f"{name.removeprefix('p')}\u00a0%", [figure(value)]))
    return table


def _tasks(tasks: Iterable[Mapping[str, Any]], say: Words) -> Table | None:
    table = Table(say("tasks"), [say("task"), say("original"), say("lighter"), say("task.change")])
    for entry in tasks:
        for told in entry["paired"]:
            ends = " – ".join(figure(end, 3) for end in told["interval"] or ())
            change = figure(told["change"], 3) + (f" ({ends})" if ends else "")
            cells = [figure(told["original"], 4), figure(told["lighter"], 4), change]
            table.rows.append(Row(f"{entry['task']} {told['metric']} ({told['items']})", cells))
        for metric, value in entry["original"].items():
            if metric in entry["lighter"]:
                cells = [figure(value, 4), figure(entry["lighter"][metric], 4), ""]
                table.rows.append(Row(f"{entry['task']} {metric}", cells))
    return table if table.rows else None


def skills(compare: Mapping[str, Any], say: Words) -> dict[str, Any] | None:
    """Retention as a plot and a table, and the answers that changed; None without skills."""
    entries = compare["skills"]
    if not entries:
        return None
    judged = {entry["of"]: entry for entry in compare["judgements"] if entry["limit"] == "min_retention"}
    flips = [_flips(entry, say) for entry in entries if entry["flips"]["lost"] or entry["flips"]["gained"]]
    shown = max((len(group["answers"]) for flip in flips for group in flip["groups"]), default=0)
    return {
        "plot": _skills_plot(entries, next((entry["at"] for entry in judged.values()), None), say),
        "table": _skills_table(entries, judged, say),
        "flips": sorted(flips, key=lambda flip: flip["net"]),
        "flips_lede": say("flips.lede", count=shown),
    }


def _skills_plot(entries: Sequence[Mapping[str, Any]], at: float | None, say: Words) -> str | None:
    known = [entry for entry in entries if entry["retention"]["value"] is not None]
    if not known:
        return None
    rows, said = [], []
    for entry in known:
        value, ends = entry["retention"]["value"], entry["retention"]["interval"]
        shown = f"{percent(value)} ({interval(ends, True)})" if ends else percent(value)
        said.append(f"{entry['skill']} {shown}")
        rows.append(RowOf(entry["skill"], percent(value), ends, [Mark(value, "dot lighter", said[-1])]))
    axis = _retention_axis([end for row in rows for end in (row.marks[0].value, *(row.ends or ()))], at)
    ticks = [(value, f"{100 * value:g}\u00a0%") for value in axis.ticks(5)]
    lines = [(1.0, "whole", say("original"))]
    if at is not None and axis.holds(at):
        lines.append((at, "limit", say("limit.line", at=percent(at, 0))))
    description = say("skills.desc", list="; ".join(said))
    return rows_plot(f"skills-{say.language}", say("skills.plot"), description, axis, rows, ticks, lines)


def _retention_axis(values: Sequence[float], at: float | None) -> Axis:
    """Around the values and 1; the limit too unless it would squeeze them into less than a fourth of the axis."""
    values = [*values, 1.0]
    if at is not None and max(values) - min(values) > (max(values) - at) / 4:
        values.append(at)
    return fitted(values)


def _skills_table(entries: Sequence[Mapping[str, Any]], judged: Mapping[str, Any], say: Words) -> Table:
    head = [say("skill"), say("right"), say("retention"), say("flips")]
    table = Table(say("skills.table"), [*head, *([say("verdict")] if judged else [])], wide=True)
    for entry in entries:
        kept = entry["retention"]
        retention = two_lines(percent(kept["value"]), interval(kept["interval"], True))
        cells = [
            f"{percent(entry['original']['accuracy'])} → {percent(entry['lighter']['accuracy'])}",
            say("at_chance") if kept["value"] is None else retention,
            two_lines(f"{entry['flips']['lost']} / {entry['flips']['gained']}", f"p {figure(entry['holm_p'], 2)}"),
        ]
        if judged:
            cells.append(_badge(judged[entry["skill"]]["verdict"], say) if entry["skill"] in judged else "")
        table.rows.append(Row(entry["skill"], cells))
    return table


def _flips(entry: Mapping[str, Any], say: Words) -> dict[str, Any]:
    flips = entry["flips"]
    groups = [
        {"title": say(f"flips.{kind}"), "lost": kind == "lost", "answers": flips[f"{kind}_examples"]}
        for kind in ("lost", "gained")
        if flips[f"{kind}_examples"]
    ]
    about = entry.get("groups", entry["items"])  # questions on one subject are one sample
    key = "flips.groups" if about < entry["items"] else "flips.count"
    counts = {"lost": flips["lost"], "gained": flips["gained"], "items": f"{entry['items']:,}"}
    count = say(key, **counts, groups=f"{about:,}")
    return {"skill": entry["skill"], "count": count, "groups": groups, "net": flips["gained"] - flips["lost"]}


def cost(compare: Mapping[str, Any], say: Words) -> dict[str, Any] | None:
    """Speed and memory of both; None where neither was measured."""
    table = Table(say("cost.table"), ["", say("original"), say("lighter"), say("ratio")])
    speed, memory, lede = compare.get("speed"), compare.get("memory") or {}, ""
    if speed:
        counts = {"prompt": speed["prompt_tokens"], "decoded": speed["decoded_tokens"], "rounds": speed["rounds"]}
        lede = say("cost.lede", runtime=speed["runtime"], **counts)
        for name in ("prefill", "decode"):
            ratio = speed[name]["ratio"]
            spread = "({}\u00a0–\u00a0{})".format(*map(times, ratio["spread"]))
            both = [figure(speed[name][which]) for which in ("original", "lighter")]
            table.rows.append(Row(say(name), [*both, two_lines(times(ratio["value"]), spread)]))
    for name, key, show in (("load", "load_seconds", say.duration), ("peak", "peak_bytes", size)):
        before, after = ((memory.get(which) or {}).get(key) or 0 for which in ("original", "lighter"))
        if before and after:
            table.rows.append(Row(say(name), [show(before), show(after), times(after / before)]))
    return {"lede": lede, "table": table} if table.rows else None
