"""Results as tables: for a terminal (rich, which knows how wide Korean is) and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table

from whet.cli.phrases import duration, say, sentence, size
from whet.report.numbers import figure, with_error, written_size

PARTS = ("weights", "linears", "embedding", "head", "other", "adapter", "tokenizer")


@dataclass
class Sheet:
    """Cells under headings. The first column is text; the others are numbers, set to the right, unless `words`."""

    title: str
    headings: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    words: bool = False

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        table.show_header = any(self.headings)
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if index and not self.words else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = ["---", *["---" if self.words else "---:"] * (len(self.headings) - 1)]
        return "\n".join([line(self.headings), line(rule), *map(line, self.rows)])


def by_part(before: dict[str, int], after: dict[str, int], total: str) -> Sheet:
    """Bytes of both, part by part, with the whole first; `total` is its phrase. Before a plan only `after`'s whole is
    known."""
    sheet = Sheet(say("tensors"), ["", say("original"), say("lighter"), say("ratio")])
    for part in ("total", *PARTS):
        if part in after and (before.get(part) or after[part]):
            first = before.get(part, 0)
            ratio = f"{after[part] / first:.3f}" if first else ""
            sheet.rows.append(
                [say(total if part == "total" else f"size.{part}"), size(first), size(after[part]), ratio]
            )
    return sheet


def precisions(levels: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """Each of several precisions: what it lost, the bytes that it adds to the file, and those of a file of it alone."""
    sheet = Sheet(
        say("levels"), [say("levels.bits"), "KL", say("levels.top1"), say("levels.adds"), say("levels.alone")]
    )
    for bits, level in levels.items():
        kept = [figure(level["kl"]), f"{100 * level['top1']:.1f} %"] if "kl" in level else ["", ""]
        sheet.rows.append([f"{bits} ({level['scheme']})", *kept, size(level["bytes"]), size(level["alone"])])
    return sheet


def needs(result: dict[str, Any]) -> Sheet:
    """What a dry run says the run would take, and with other solvers than the one that was asked for."""
    others = {name: seconds for name, seconds in result.get("efforts", {}).items() if seconds != result["seconds"]}
    sheet = Sheet(say("needs"), ["", ""])
    sheet.rows = [
        [say("time"), duration(result["seconds"])],
        *([say("effort", name=name), duration(seconds)] for name, seconds in others.items()),
        [say("memory"), size(result["memory"])],
        [say("disk"), size(result["disk"])],
    ]
    return sheet


def elastic(sizes: Sequence[dict[str, Any]]) -> Sheet:
    """The models that can be cut from an elastic folder, and what each loses."""
    named = {"layers": say("elastic.layers"), "channels": say("elastic.channels"), "heads": say("elastic.heads")}
    units = [unit for unit in named if any(one["amounts"][unit] for one in sizes)]
    repaired = any(one["kl_repaired"] is not None for one in sizes)
    headings = [say("elastic.size"), *(named[unit] for unit in units), say("kl")]
    sheet = Sheet(say("elastic.title"), [*headings, *([say("elastic.kl_repaired")] if repaired else [])])
    for one in sizes:
        kls = [one["kl"], *([one["kl_repaired"]] if repaired else [])]
        cells = [written_size(one["size"]), *(str(one["amounts"][unit]) for unit in units)]
        sheet.rows.append([*cells, *map(figure, kls)])
    return sheet


def comparison(result: dict[str, Any]) -> list[Sheet]:
    """The sheets of a comparison that have rows: as a whole, skill by skill, aspects, tasks, limits."""
    sheets = overview(result), skills(result), *aspects(result), tasks(result), limits(result)
    return [sheet for sheet in sheets if sheet.rows]


def overview(result: dict[str, Any]) -> Sheet:
    """Size by part, divergence from the original, speed and memory."""
    before, after = result["size"]["original"], result["size"]["lighter"]
    sheet = by_part(before, after, "size")
    sheet.title = say("whole")
    measured = result["divergence"]
    if "answers" in measured:
        sheet.rows += _answers(measured)
    else:
        kl, top1, perplexity = measured["kl"], measured["top1"], measured["perplexity"]
        sheet.rows.append([say("kl"), "", with_error(kl["mean"], kl["standard_error"]), ""])
        sheet.rows.append([say("top1"), "", f"{100 * top1['mean']:.1f} %", ""])
        ratio = perplexity["ratio"]["value"]
        sheet.rows.append(
            [say("perplexity"), f"{perplexity['original']:.3f}", f"{perplexity['lighter']:.3f}", f"{ratio:.3f}"]
        )
    for name in ("prefill", "decode") if result["speed"] else ():
        speed = result["speed"][name]
        row = [f"{speed['original']:.0f}", f"{speed['lighter']:.0f}", f"{speed['ratio']['value']:.2f}"]
        sheet.rows.append([say(name), *row])
    memory = result["memory"] or {}
    both = [memory.get("original", {}), memory.get("lighter", {})]
    for name, key, shown in (("load", "load_seconds", _seconds), ("memory", "peak_bytes", size)):
        found = [one.get(key) for one in both]
        if all(found):
            sheet.rows.append([say(name), *map(shown, found), f"{found[1] / found[0]:.2f}"])
    return sheet


def _answers(measured: dict[str, Any]) -> list[list[str]]:
    """What a model with a class head kept; a figure that nothing tells is a dash."""
    if measured["kind"] == "vectors":
        error, cosine, near = measured["error"], measured["cosine"], measured["neighbours"]
        return [
            [say("vectors.error"), "", with_error(error["mean"], error["standard_error"]), ""],
            [say("vectors.cosine"), "", with_error(cosine["mean"], cosine["standard_error"]), ""],
            [say("vectors.neighbours"), "", "–" if near is None else share(near), ""],
        ]
    if measured["kind"] == "scores":
        first, second = measured["difference"], measured["order"]
        names = say("scores.difference"), say("scores.order")
    else:
        first, second = measured["kl"], measured["top1"]
        names = say("classes.kl"), say("classes.top1")
    mean = "–" if first is None else with_error(first["mean"], first["standard_error"])
    return [[names[0], "", mean, ""], [names[1], "", "–" if second is None else share(second), ""]]


def share(told: dict[str, Any]) -> str:
    """A share with its interval."""
    ends = told["interval"]
    return f"{100 * told['mean']:.1f} %" + (f" ({100 * ends[0]:.1f} – {100 * ends[1]:.1f})" if ends else "")


def answered(found: dict[str, Any]) -> str:
    """A sentence on what a model with a class head kept on the verifying text."""
    counted = {"count": found["answers"], "of": say(f"answers.{found['of']}")}
    if found["kind"] == "vectors":
        error = with_error(found["error"]["mean"], found["error"]["standard_error"])
        near = "–" if found["neighbours"] is None else share(found["neighbours"])
        return say("verified.vectors", error=error, cosine=f"{found['cosine']['mean']:.5f}", near=near, **counted)
    if found["kind"] != "scores":
        kl = with_error(found["kl"]["mean"], found["kl"]["standard_error"])
        return say("verified.classes", kl=kl, top1=share(found["top1"]), **counted)
    if found["difference"] is None or found["order"] is None:
        return say("verified.same", **counted)
    difference = with_error(found["difference"]["mean"], found["difference"]["standard_error"])
    return say("verified.scores", difference=difference, order=share(found["order"]), **counted)


def skills(result: dict[str, Any]) -> Sheet:
    """Accuracy of both, retention with its interval, flips both ways and Holm's p, one row a skill."""
    headings = [say("skill"), say("original"), say("lighter"), say("retention"), say("flips"), say("p")]
    sheet = Sheet(say("skills"), headings)
    for entry in result["skills"]:
        accuracies = [f"{100 * entry[which]['accuracy']:.1f} %" for which in ("original", "lighter")]
        flips = f"{entry['flips']['lost']} / {entry['flips']['gained']}"
        kept = _with_interval(entry["retention"]["value"], entry["retention"]["interval"])
        sheet.rows.append([entry["skill"], *accuracies, kept, flips, f"{entry['holm_p']:.2g}"])
    return sheet


def tasks(result: dict[str, Any]) -> Sheet:
    """The harness's own metrics of both models, and before them those that are paired, with the change."""
    sheet = Sheet(say("tasks"), [say("metric"), say("original"), say("lighter"), say("change")])
    for entry in result["tasks"]:
        for told in entry["paired"]:
            ends = " – ".join(f"{100 * end:+.1f} %" for end in told["interval"] or ())
            change = f"{100 * told['change']:+.1f} %" + (f" ({ends})" if ends else "")
            sides = [f"{100 * told[side]:.1f} %" for side in ("original", "lighter")]
            sheet.rows.append([f"{entry['task']} {told['metric']} ({told['items']:,})", *sides, change])
        for metric, value in entry["original"].items():
            if metric in entry["lighter"]:
                row = [f"{entry['task']} {metric}", f"{value:.4g}", f"{entry['lighter'][metric]:.4g}", ""]
                sheet.rows.append(row)
    return sheet


def aspects(result: dict[str, Any]) -> list[Sheet]:
    """What else was measured: a sheet for each aspect, a row for each figure."""
    from whet.measure.aspects import KNOWN
    from whet.measure.figures import ASPECTS

    found = []
    for name, told in result["aspects"].items():
        sheet = Sheet(sentence(KNOWN[name].title), ["", say("original"), say("lighter"), say("measured")])
        for read in told["readings"]:
            about = ASPECTS[f"{name}.{read['figure']}"]
            meaning = f"{read['of']}: {sentence(about.meaning)}" if read["of"] else sentence(about.meaning)
            sides = ["" if read[side] is None else _in_unit(about, read[side]) for side in ("original", "lighter")]
            ends = " – ".join(_in_unit(about, end) for end in read["interval"] or ())
            value = "–" if read["value"] is None else _in_unit(about, read["value"]) + (f" ({ends})" if ends else "")
            sheet.rows.append([meaning, *sides, value])
        found.append(sheet)
    return found


def _in_unit(about: Any, value: float) -> str:
    if about.unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.4g} {about.unit}".rstrip()


def limits(result: dict[str, Any]) -> Sheet:
    """One row a judgement."""
    sheet = Sheet(say("limits"), [say("limit"), say("measured"), say("verdict")])
    for entry in result["judgements"]:
        name = f"{entry['limit']} {entry['at']:g}" + (f", {entry['of']}" if entry["of"] else "")
        sheet.rows.append([name, _with_interval(entry["value"], entry["interval"]), say(entry["verdict"])])
    return sheet


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} – {interval[1]:.3f})" if interval else "")


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 60 else duration(value)
