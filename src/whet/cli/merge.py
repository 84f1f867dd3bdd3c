"""`whet merge`: a model and its adapter in, one model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Model, Out, takes
from whet.cli.phrases import say, sentence
from whet.cli.starter import check_material, resolve
from whet.cli.tables import by_part, needs
from whet.report.numbers import figure
from whet.steps.verbs import MergeVerb

EXAMPLE = "Example: whet merge MODEL adapter merged"


@takes(MergeVerb)
def run(
    model: Model,
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder, of whet tune or PEFT.", show_default=False)
    ],
    out: Out,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, tell memory, disk and time; write nothing.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> int:
    """Write MODEL with ADAPTER as a part of it to OUT. Codes of a quantized model stay where that can be."""
    folder = resolve(model)
    check_material(options["text"])
    with Console(as_json, resume=out) as console:
        result = whet.merge(folder, adapter, out, **options, dry_run=dry_run, on_event=console.on_event)
        if dry_run:
            console.show(say("planned"), needs(result).rich(), say(f"merged.{result['how']}"))
            for note in result["notes"]:
                console.show(f"{say('note')}: {sentence(note)}")
        else:
            merged(console, result)
        console.result(result)
    return 0


def merged(console: Console, result: dict[str, Any]) -> None:
    """How the adapter went in, and how far the model is from base and adapter."""
    console.show(by_part(result["sizes"]["original"], result["sizes"]["lighter"], "size").rich())
    console.show(say(f"merged.{result['how']}"))
    if "logits" in result["check"]:
        console.show(say("merged.logits", difference=figure(result["check"]["logits"])))
    if "kl" in result:
        console.show(say("verified", kl=figure(result["kl"]), top1=f"{100 * result['top1']:.1f} %"))
    console.show(say("made", out=result["out"]))
