"""`whet slice`: an elastic folder in, a smaller model that was cut from it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.compress import made, plan
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Out, takes
from whet.steps.verbs import SliceVerb

EXAMPLE = "Example: whet slice elastic smaller --size 60%"
Elastic = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="An elastic folder, of whet prune --elastic.", show_default=False)
]


@takes(SliceVerb)
def run(
    folder: Elastic,
    out: Out,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, tell memory, disk and time; write nothing.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> int:
    """Cut a smaller model from the elastic FOLDER into OUT, in seconds and without text."""
    with Console(as_json, resume=out) as console:
        result = whet.slice(folder, out, **options, dry_run=dry_run, on_event=console.on_event)
        plan(console, result) if dry_run else made(console, result, folder)
        console.result(result)
    return 0
