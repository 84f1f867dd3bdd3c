"""`whet dynamic`: a model folder and text in, a folder out that decides at run time how much of the model is used."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Model, Out, Trust, takes, trusted
from whet.cli.phrases import percent, say, sentence, size
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.cli.tables import needs
from whet.report.numbers import figure
from whet.steps.verbs import DynamicVerb

EXAMPLE = "Example: whet dynamic MODEL adaptive --active 50%,25% --text corpus.jsonl"
_WINDOWS = 2048  # of the embedded model's own text, where none is given


@takes(DynamicVerb)
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
    """Have MODEL decide at run time how much of it is used, by the prompt or by the token, and write it to OUT."""
    folder = resolve(model)
    trusted(folder, trust_remote_code)
    check_material(options["text"])
    if options["text"] is None and is_starter(folder):
        options["text"] = calibration(options["samples"] or _WINDOWS, options["seed"])
    with Console(as_json, resume=out) as console:
        result = whet.dynamic(folder, out, **options, dry_run=dry_run, on_event=console.on_event)
        if dry_run:
            console.show(say("planned"), needs(result).rich())
            for note in result["notes"]:
                console.show(f"{say('note')}: {sentence(note)}")
        else:
            made(console, result)
        console.result(result)
    return 0


def made(console: Console, result: dict[str, Any]) -> None:
    """What is used of the model and what that loses, and what to type next."""
    for one in result.get("active_sizes", ()):
        console.show(
            say(
                "dynamic.active",
                share=percent(one["active"]),
                used=size(one["bytes"]),
                stored=size(result["stored"]),
                kl=figure(one["kl"]),
                other=figure(one["kl_other"]),
                static=figure(one["kl_static"]),
            )
        )
    if (report := result.get("report")) is not None:
        console.show(
            say(
                "dynamic.exits",
                threshold=result["threshold"],
                agreement=f"{100 * report['agreement']:.2f} %",
                layers=f"{report['layers']:.2f}",
                of=report["of"],
                reads=f"{100 * report['reads']:.1f} %",
            )
        )
    how = "--early-exit" if report is not None else f"--active {100 * result['active'][0]:.4g}%"
    command = f"whet generate {result['out']} PROMPT {how}"
    console.show(say("made", out=result["out"]), say("dynamic.next", command=command))
