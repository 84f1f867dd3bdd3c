"""`whet hardware`: what is fast on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import whet
from whet.cli.completion import models
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Trust, trusted
from whet.cli.phrases import duration, say, sentence
from whet.cli.starter import resolve
from whet.cli.tables import Sheet
from whet.messages import Message

EXAMPLE = "Example: whet hardware MODEL"


def run(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="The original whose shapes are timed; without it a Llama of 134 million parameters.",
            autocompletion=models,
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what was measured before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how long measuring takes.")] = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Time runtimes and formats on this machine, on the shapes of MODEL, and say what to use."""
    folder = None if model is None else resolve(model)
    if folder is not None:
        trusted(folder, trust_remote_code)
    with Console(as_json) as console:
        estimate = whet.hardware(folder, dry_run=True)
        if dry_run:
            console.show(say("hardware.estimate", time=duration(estimate["estimate"])))
            console.result(estimate)
            return 0
        console.line(say("hardware.estimate", time=duration(estimate["estimate"])))
        found = whet.hardware(folder, fresh=fresh, on_event=console.on_event)
        if found["cached"] is not None:
            console.line(say("hardware.cached", file=found["cached"]))
        for sheet in (about(found), pairs(found)):
            console.show(sheet.rich())
        for one in found["left_out"]:
            console.show(f"{say('note')}: {one['pair']}: {sentence(Message.read(one['why']))}")
        for one in found["advice"]:
            console.show(f"• {sentence(Message.read(one))}")
        console.result(found)
    return 0


def about(found: dict[str, Any]) -> Sheet:
    """The processor, and what its memory gives to so many threads."""
    sheet = Sheet(f"{found['machine']['processor']}", [say("hardware.threads"), "triad", say("hardware.read")])
    for threads, memory in found["bandwidth"].items():
        sheet.rows.append([threads, *(f"{memory[name] / 1e9:.1f} GB/s" for name in ("triad", "read"))])
    return sheet


def pairs(found: dict[str, Any]) -> Sheet:
    """A row a pair, the fastest first. What was added up of matrices, and not timed whole, is marked."""
    headings = ["hardware.bits", "hardware.decode", "hardware.spread", "hardware.prefill", "hardware.share"]
    sheet = Sheet(say("hardware.pairs"), ["", *map(say, headings), say("hardware.speedup")])
    for pair in sorted(found["pairs"], key=lambda pair: -pair["decode"]):
        mark = " *" if pair["measured"] == "kernels" else ""
        spread = "" if pair["spread"] is None else "{:.0f} – {:.0f}".format(*pair["spread"])
        speedup = "" if pair["speedup"] is None else f"{pair['speedup']:.2f}"
        cells = [f"{pair['bits']:.2f}", f"{pair['decode']:.0f}", spread, f"{pair['prefill']:.0f}"]
        sheet.rows.append(
            [f"{pair['runtime']} {pair['format']}{mark}", *cells, f"{100 * pair['share']:.0f} %", speedup]
        )
    return sheet
