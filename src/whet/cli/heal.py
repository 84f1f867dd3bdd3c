"""`whet heal`: a lighter model that lost skills in, the same one with them back out, or nothing."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import whet
from whet.cli.completion import models
from whet.cli.console import Console
from whet.cli.options import Debug, Json, Out, Trust, takes, trusted
from whet.cli.phrases import say, sentence
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.cli.tables import Sheet, needs
from whet.report.numbers import interval, percent
from whet.steps.heal_options import TEXTS
from whet.steps.verbs import HealVerb

EXAMPLE = "Example: whet heal lighter healed --original MODEL --skills questions.jsonl --skill arithmetic_ko"
EXIT_CODES = {"healed": 0, "unhurt": 0, "better": 4, "rolled back": 5}
_QUESTIONS = 300  # of a skill of the embedded model, that gate
_SPARE = 1.25  # of its problems, more than are taken: the original solves not all
Folder = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER", help="The lighter folder, quantized or dense.", show_default=False, autocompletion=models
    ),
]


@takes(HealVerb)
def run(
    folder: Folder,
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
    """Give back to FOLDER skills that it has lost, and nothing of the others away, and write it to OUT.

    Ends with 0 when they are back or nothing is hurt, 4 when they are better and not all the way, 5 when a skill fell
    or nothing was gained, and nothing was written.
    """
    place = resolve(folder)
    if options["original"] is not None:
        options["original"] = resolve(options["original"])
        trusted(options["original"], trust_remote_code)
    trusted(place, trust_remote_code)
    for name in ("skills", "practice"):
        check_material(None, options[name])
    check_material(options["text"])
    if is_starter(place):
        _with_own(options)
    with Console(as_json, resume=out) as console:
        result = whet.heal(place, out, **options, dry_run=dry_run, on_event=console.on_event)
        if dry_run:
            console.show(say("planned"), needs(result).rich())
            for note in result["notes"]:
                console.show(f"{say('note')}: {sentence(note)}")
        else:
            healed(console, result)
        console.result(result)
    return 0 if dry_run else EXIT_CODES[result["outcome"]]


def _with_own(options: dict[str, Any]) -> None:
    """Of the embedded model, what is not named: itself for original, its questions, its text."""
    from whet import starter

    if options["original"] is None:
        options["original"] = starter.path()
    if options["skills"] is None:
        options["skills"] = starter.skills("verify", _QUESTIONS, options["seed"])
        if options["practice"] is None:
            options["practice"] = starter.practice(round(_SPARE * options["problems"]), options["seed"])
    if options["text"] is None:
        options["text"] = calibration(options["samples"] or TEXTS, options["seed"])


def healed(console: Console, result: dict[str, Any]) -> None:
    """How every skill was before and is now, what was practised, and how it ended."""
    for skill, about in result.get("problems", {}).items():
        console.show(say("healed.problems", skill=skill, count=about["problems"], failed=about["failed"]))
    headings = [say(f"healed.{name}") for name in ("skill", "before", "after", "change")]
    sheet = Sheet(say("healed.title"), headings)
    for entry in sorted(result["skills"], key=lambda entry: not entry["practised"]):
        name = say("healed.practised", skill=entry["skill"]) if entry["practised"] else entry["skill"]
        sheet.rows.append([name, *(_share(entry[part]) for part in ("before", "after", "change"))])
    if sheet.rows:
        console.show(sheet.rich())
    console.show(say(f"healed.{result['outcome']}", reason=sentence(result["reason"])))
    if "sizes" in result:
        console.show(say("made", out=result["out"]))


def _share(figure: dict[str, Any]) -> str:
    return "–" if figure["value"] is None else f"{percent(figure['value'])} ({interval(figure['interval'], True)})"
