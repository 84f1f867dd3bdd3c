"""`whet masks`: a model folder in, the same with some of its weights exactly 0 out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import whet
from whet.cli.compress import made, plan
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Model, Out, Trust, takes
from whet.cli.starter import prepared
from whet.steps.verbs import MasksVerb

EXAMPLE = "Example: whet masks MODEL sparse --pattern 2:4 --text corpus.jsonl --field text"


@takes(MasksVerb)
def run(
    model: Model,
    out: Out,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, tell memory, disk and time; write nothing.")
    ] = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> int:
    """Write a copy of MODEL to OUT in which some weights are exactly 0. Interrupted, it goes on with `whet resume`."""
    folder = prepared(model, trust_remote_code, options)
    with Console(as_json, resume=out) as console:
        result = whet.masks(folder, out, **options, dry_run=dry_run, on_event=console.on_event)
        plan(console, result) if dry_run else made(console, result, folder)
        console.result(result)
    return 0
