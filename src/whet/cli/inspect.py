"""`whet inspect`: what a model is made of, what each block carries, and what is worth doing about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console, plain
from whet.cli.options import Debug, Json, Model, Trust, takes, trusted
from whet.cli.phrases import language, say, size
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.cli.tables import Sheet
from whet.paths import check_output
from whet.report.numbers import figure
from whet.steps.options import SAMPLES
from whet.steps.verbs import Inspect

EXAMPLE = "Example: whet inspect MODEL --text corpus.txt --skills skills.jsonl --report inspect.html"
ITEMS = 64  # of each of the embedded model's skills


@takes(Inspect)
def run(
    model: Model,
    *,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write every score as JSON.")] = None,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write a page (HTML) that shows all of it.")
    ] = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> int:
    """Score every part of MODEL: what it weighs, what it is worth to each skill and language, what stands out."""
    folder = resolve(model)
    trusted(folder, trust_remote_code)
    check_material(options["text"], options["skills"])
    for file in filter(None, (out, page)):
        check_output(file, folder, options["text"], options["skills"])
    if is_starter(folder):
        from whet import starter

        if options["text"] is None:
            options["text"] = calibration(options["samples"] or SAMPLES, options["seed"])
        if options["skills"] is None:
            options["skills"] = starter.skills("solve", ITEMS, options["seed"])
    with Console(as_json) as console:
        found = whet.inspect(folder, **options, on_event=console.on_event)
        console.show(roles(found).rich(), blocks(found).rich())
        if found["skills"]:
            console.show(carried(found).rich())
        console.show(points(found).rich())
        from whet.report.carried import told
        from whet.report.words import Words

        for sentence in told(found, Words(language())):
            console.show(f"• {sentence}")
        for file, content in files(found, out, page, str(model)):
            from whet.checkpoint import write_bytes

            write_bytes(file, content.encode())
            console.show(say("wrote", files=file))
        console.result(found)
    return 0


def files(found: dict[str, Any], out: Path | None, page: Path | None, name: str) -> list[tuple[Path, str]]:
    """What is to be written where."""
    from whet.report import page as drawn

    written = []
    if out is not None:
        written.append((out, json.dumps(plain(found), ensure_ascii=False, indent=2) + "\n"))
    if page is not None:
        written.append((page, drawn({"scores": found, "name": name}, language())))
    return written


def roles(found: dict[str, Any]) -> Sheet:
    """Parameters, bytes and sensitivity by role."""
    sheet = Sheet(say("inspect.roles"), ["", say("inspect.parameters"), say("plan.bytes"), say("inspect.worth")])
    for role in found["roles"]:
        worth = "" if role["sensitivity"] is None else f"{role['sensitivity']:.2e}"
        sheet.rows.append([role["role"], f"{int(role['parameters']):,}", size(role["bytes"]), worth])
    return sheet


def blocks(found: dict[str, Any]) -> Sheet:
    """Influence, sensitivity and the largest input of each block, and its worth to each language."""
    languages = list(dict.fromkeys(name for block in found["blocks"] for name in block["languages"]))
    sheet = Sheet(
        say("inspect.blocks"),
        [say("inspect.block"), say("inspect.influence"), say("inspect.worth"), *languages, say("inspect.spike")],
    )
    for block in found["blocks"]:
        spike = max(block["outliers"], key=lambda outlier: outlier["ratio"], default=None)
        shown = "" if spike is None else f"{spike['ratio']:.0f}× {spike['address'].rpartition('.')[2]}"
        spoken = [f"{block['languages'].get(name, 0.0):.1e}" for name in languages]
        figures = [f"{block['influence']:.3f}", f"{block['sensitivity']:.1e}"]
        sheet.rows.append([str(block["index"]), *figures, *spoken, shown])
    return sheet


def carried(found: dict[str, Any]) -> Sheet:
    """What each block is worth to each skill, as a share of the skill's whole."""
    sheet = Sheet(say("inspect.carried"), [say("skill"), *(str(block["index"]) for block in found["blocks"])])
    for skill in found["skills"]:
        worth = [block["skills"].get(skill, 0.0) for block in found["blocks"]]
        whole = sum(worth) or 1.0
        sheet.rows.append([skill, *(f"{100 * share / whole:.0f} %" for share in worth)])
    return sheet


def points(found: dict[str, Any]) -> Sheet:
    """What usual choices would take and lose, predicted."""
    sheet = Sheet(say("inspect.points", target=found["target"]), ["", say("plan.bits"), say("plan.bytes"), say("kl")])
    for point in found["points"]:
        embed = "" if point["embed"] in (None, "keep") else f", --embed {point['embed']}"
        sheet.rows.append(
            [f"{point['plan']}{embed}", f"{point['bits']:.2f}", size(point["bytes"]), figure(point["kl"])]
        )
    return sheet
