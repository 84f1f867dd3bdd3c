"""`whet prune`: a model folder in, a smaller model of the same family out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import whet
from whet.cli.compress import made, plan
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Model, Out, takes
from whet.cli.phrases import say
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.cli.tables import elastic
from whet.report.numbers import written_size
from whet.steps.options import SAMPLES
from whet.steps.verbs import PruneVerb

EXAMPLE = "Example: whet prune MODEL smaller --remove 25% --text corpus.jsonl --field text"


@takes(PruneVerb)
def run(
    model: Model,
    out: Out,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, tell memory, disk and time; write nothing.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> int:
    """Write a smaller copy of MODEL to OUT, without some blocks, channels, heads, experts or tokens."""
    folder = resolve(model)
    check_material(options["text"])
    if options["text"] is None and is_starter(folder):
        options["text"] = calibration(options["samples"] or SAMPLES, options["seed"])
    with Console(as_json, resume=out) as console:
        result = whet.prune(folder, out, **options, dry_run=dry_run, on_event=console.on_event)
        plan(console, result) if dry_run else made(console, result, folder)
        if "elastic" in result:
            sizes = result["elastic"]["sizes"]
            console.show(elastic(sizes).rich())
            command = f"whet slice {out} smaller --size {written_size(sizes[len(sizes) // 2]['size'])}"
            console.show(say("elastic.next", command=command))
        console.result(result)
    return 0
