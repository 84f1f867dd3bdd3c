"""`whet distill`: a smaller model in, the same one trained to predict what its original predicts out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import whet
from whet.cli.completion import models
from whet.cli.compress import made, plan
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Out, Trust, takes, trusted
from whet.cli.phrases import say
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.report.numbers import figure
from whet.steps.distill_options import WINDOWS
from whet.steps.verbs import DistillVerb

EXAMPLE = "Example: whet distill smaller taught --teacher MODEL --text corpus.jsonl --field text"
Student = Annotated[
    str,
    typer.Argument(
        metavar="STUDENT",
        help="The dense folder to train, such as one of whet prune.",
        show_default=False,
        autocompletion=models,
    ),
]


@takes(DistillVerb)
def run(
    student: Student,
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
    """Train STUDENT to predict what its original predicts, and write it to OUT."""
    folder = resolve(student)
    if options["teacher"] is not None:
        options["teacher"] = resolve(options["teacher"])
        trusted(options["teacher"], trust_remote_code)
    trusted(folder, trust_remote_code)
    check_material(options["text"])
    if options["text"] is None and is_starter(folder):
        options["text"] = calibration(options["samples"] or WINDOWS, options["seed"])
    with Console(as_json, resume=out) as console:
        result = whet.distill(folder, out, **options, dry_run=dry_run, on_event=console.on_event)
        if dry_run:
            plan(console, result)
        else:
            held_out = result["training"].get("held_out")
            if held_out is not None:
                before, after = figure(held_out["start"]), figure(result["kl"])
                console.show(say("distilled", steps=result["training"]["steps"], before=before, after=after))
            made(console, result, options["teacher"])
        console.result(result)
    return 0
