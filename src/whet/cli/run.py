"""`whet run`: every step of a recipe, each checked by its gate and undone where it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.completion import PRESETS, RUNS, models, runs
from whet.cli.console import Console
from whet.cli.options import Debug, Device, Json, Trust, trusted
from whet.cli.phrases import duration, say, sentence, size
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.cli.tables import Sheet, comparison
from whet.errors import UsageError

EXAMPLE = "Example: whet run recipe.yaml MODEL lighter"
EXIT_CODES = {"pass": 0, "inconclusive": 4, "fail": 5}
ITEMS, DOCUMENTS = 400, 2000  # of each of the embedded model's skills, and of its text


def run(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help=f"A .yaml file, or a preset: {PRESETS}, {RUNS}.",
            show_default=False,
            autocompletion=runs,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="A Hugging Face folder, or `starter`: the embedded one.", autocompletion=models
        ),
    ] = None,
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="The folder to write, new or empty.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Text of every step, gate and report, divided before the first step.")
    ] = None,
    skills: Annotated[
        str | None, typer.Option(help="A .jsonl file of questions for budgets, gates and the report, divided likewise.")
    ] = None,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Keep what was rolled back, in OUT/failed.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Random seed; the recipe's, or 0.", min=0)] = None,
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every step, tell memory, disk and time; write nothing.")
    ] = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Do every step of RECIPE, unattended. Interrupted, it goes on with `whet resume OUT`.

    Ends with 0 when every gate holds, 5 when one does not and the run stopped there, 4 when there was not enough
    evidence. What was kept by then is in OUT.
    """
    from whet.recipe.schema import read_recipe

    asked = read_recipe(recipe)
    named, place = model or asked.model, out or asked.out
    if named is None or place is None:
        name = "MODEL" if named is None else "OUT"
        raise UsageError(
            "{name} is missing: give the folder, or a recipe that names it (--recipe FILE). See `{command} --help`.",
            name=name,
            command="whet run",
        )
    folder = resolve(named)
    trusted(folder, trust_remote_code)
    check_material(text, skills)
    material: dict[str, Any] = {"text": text or asked.text, "skills": skills or asked.skills}
    if is_starter(folder):
        from whet import starter

        number = asked.seed if seed is None else seed
        material["text"] = material["text"] or calibration(DOCUMENTS // 6, number)
        material["skills"] = material["skills"] or starter.skills("verify", ITEMS, number)
    with Console(as_json, resume=Path(place)) as console:
        result = whet.run(
            recipe,
            folder,
            place,
            **material,
            seed=seed,
            device=device,
            keep_failed=keep_failed,
            dry_run=dry_run,
            on_event=console.on_event,
        )
        if dry_run:
            console.show(say("planned"))
        else:
            report(console, result)
        console.result(result)
    return 0 if dry_run else EXIT_CODES[result["verdict"]]


def report(console: Console, result: dict[str, Any]) -> None:
    """How every step ended, what was kept of the original, and where it is."""
    console.show(timeline(result).rich())
    for note in result["notes"]:
        console.show(f"{say('note')}: {sentence(note)}")
    if result["report"] is not None:
        for sheet in comparison(result["report"]):
            console.show(sheet.rich())
    console.show(say(f"run.{result['verdict']}"))
    if result["kept"]:
        console.show(say("made", out=result["out"]))


def timeline(result: dict[str, Any]) -> Sheet:
    """A row a step: how it ended, its tries, its bytes and its time."""
    headings = ["", say("run.step"), say("run.outcome"), say("run.tries"), say("run.bytes"), say("run.time")]
    sheet = Sheet(say("run.steps"), headings, words=True)
    for step in result["steps"]:
        last = step["attempts"][-1] if step["attempts"] else None
        seconds = sum(attempt["seconds"] for attempt in step["attempts"])
        cells = [str(step["step"]), step["craft"], say(f"outcome.{step['outcome']}"), str(len(step["attempts"]))]
        sheet.rows.append([*cells, *(["", ""] if last is None else [size(last["bytes"]), duration(seconds)])])
    return sheet
