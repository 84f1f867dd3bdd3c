"""`whet tune`: a model folder and text in, an adapter or a trained model out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Model, Out, Trust, takes, trusted
from whet.cli.phrases import say, sentence
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.cli.tables import by_part, needs
from whet.report.numbers import figure, with_error
from whet.steps.verbs import TuneVerb

EXAMPLE = "Example: whet tune MODEL adapter --lora 16 --text corpus.jsonl"
_WINDOWS = 512  # of the embedded model's own text, where none is given


@takes(TuneVerb)
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
    """Train MODEL on text: an adapter beside its linears, or all of it, written to OUT."""
    folder = resolve(model)
    trusted(folder, trust_remote_code)
    check_material(options["text"])
    for name in ("teacher", "original"):
        if options[name] is not None:
            options[name] = resolve(options[name])
    if options["text"] is None and is_starter(folder):
        options["text"] = calibration(options["samples"] or _WINDOWS, options["seed"])
    with Console(as_json, resume=out) as console:
        result = whet.tune(folder, out, **options, dry_run=dry_run, on_event=console.on_event)
        if dry_run:
            console.show(say("planned"), needs(result).rich())
            for note in result["notes"]:
                console.show(f"{say('note')}: {sentence(note)}")
        else:
            tuned(console, result, str(folder))
        console.result(result)
    return 0


def tuned(console: Console, result: dict[str, Any], base: str = "BASE") -> None:
    """What was trained, what held-out text says of it, and what to type next."""
    held = result["held_out"]
    if "sizes" in result:
        console.show(by_part(result["sizes"]["original"], result["sizes"]["lighter"], "size").rich())
    after = held["best"] if held["helped"] else held["start"]
    what = result["adapter"] if "rank" not in result else f"{result['adapter']} {result['rank']}"
    console.show(
        say(
            "tuned",
            what=what,
            steps=result["steps"],
            unit=say("tuned.kl" if result.get("taught") else "tuned.loss"),
            before=figure(held["start"]),
            after=figure(after),
            gain=with_error(held["start"] - held["best"], held["error"]),
        )
    )
    console.show(say("tuned.parameters", count=f"{result['trained']:,}"), say("made", out=result["out"]))
    if not result["merge"]:
        console.show(say("tuned.next", command=f"whet merge {base} {result['out']} merged"))
