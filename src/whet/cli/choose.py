"""`whet choose`: several models at the same bytes on the same questions, and which of them to take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Json, takes
from whet.cli.phrases import language, say, sentence, size
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.cli.tables import Sheet
from whet.steps.options import SAMPLES
from whet.steps.verbs import Choose

EXAMPLE = "Example: whet choose BIG SMALL chosen --budget 2GB --text corpus.txt --skills skills.jsonl"
Models = Annotated[
    list[Path],
    typer.Argument(metavar="MODEL...", help="Model folders, two or more.", show_default=False),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.", show_default=False)]


@takes(Choose)
def run(models: Models, out: Out, *, as_json: Json = False, debug: Debug = False, **options: Any) -> int:
    """Bring each MODEL to the same bytes, judge all on the same questions, and say which to take and how sure that is.

    Ends with 0 when one is better than every other, 4 when the best cannot be told from another.
    """
    folders = [resolve(model) for model in models]
    check_material(options["text"], options["skills"])
    if options["text"] is None and is_starter(folders[0]):
        from whet import starter

        options["text"] = calibration(options["samples"] or SAMPLES, options["seed"])
        options["skills"] = options["skills"] or starter.skills("report")
    with Console(as_json) as console:
        from whet.checkpoint import write_bytes
        from whet.report.frontier import frontier

        result = whet.choose(folders, out, on_event=console.on_event, **options)
        console.show(table(result).rich())
        for left in result["left_out"]:
            console.show(f"{left['model']}: {sentence(left['why'])}")
        console.show(sentence(result["advice"]))
        write_bytes(out / "choice.svg", frontier(result, language()).encode())
        console.show(say("wrote", files=f"{out / 'choice.json'}, {out / 'choice.svg'}"))
        console.result(result)
    return 0 if result["sure"] else 4


def table(result: dict[str, Any]) -> Sheet:
    """A row for each model: bytes, quality, what the best is over it, milliseconds a token."""
    heads = ["choose.model", "choose.bytes", "choose.quality", "choose.bits", "choose.behind", "choose.time"]
    sheet = Sheet(say("choose.title"), [say(head) for head in heads])
    for one in result["models"]:
        behind = result["against"].get(one["name"])
        told = "" if behind is None else "{better:.4g} ± {standard_error:.2g} (p {p:.2g})".format(**behind)
        quality = "" if one["quality"] is None else f"{100 * one['quality']:.1f} %"
        bits = "" if one["bits_a_byte"] is None else f"{one['bits_a_byte']:.4f}"
        mark = "* " if one["name"] == result["take"] else ""
        sheet.rows.append(
            [f"{mark}{one['name']}", size(one["bytes"]), quality, bits, told, f"{one['milliseconds']:.2f}"]
        )
    return sheet
