"""`whet compare`: what a lighter model kept of the original, skill by skill, with a verdict by limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.aspects import check_files_of, chosen_with
from whet.cli.completion import among, aspects, limits_of
from whet.cli.console import Console
from whet.cli.options import Chat, Debug, Device, Field, Json, Kv, Model, Precision, Seed, SkipBad, Text, Trust, trusted
from whet.cli.phrases import language, say, sentence
from whet.cli.starter import check_material, is_starter, resolve
from whet.cli.tables import comparison, needs
from whet.errors import UsageError
from whet.measure.costs import GRAMS_A_KWH, Costs
from whet.paths import check_model, check_output

EXAMPLE = "Example: whet compare MODEL lighter --text held-out.txt --skills skills.jsonl --limit max_kl=0.05"
EXIT_CODES = {"pass": 0, "inconclusive": 4, "fail": 5}


Limit = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="What must hold, e.g. min_retention=0.9 or max_kl=off; repeatable.",
        autocompletion=limits_of,
    ),
]
Skills = Annotated[
    Path | None,
    typer.Option(help="A .jsonl file; each line has skill, prompt and answer (and check) or choices (and label)."),
]
Measure = Annotated[
    str | None,
    typer.Option(
        help="What else to measure, with commas between: names of aspects, all, standard or none; -NAME leaves one "
        "out.",
        autocompletion=aspects,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(help="What both continue freely, a line each, or a .jsonl with prompt; with --measure generation."),
]
Tasks = Annotated[
    str | None, typer.Option(help="Tasks of lm-evaluation-harness, with commas between; needs the extra `tasks`.")
]
Beliefs = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Statements for the aspects belief and susceptibility, a .jsonl file; each line has statement, negation "
        "and truth.",
    ),
]
Refusals = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Prompts for the aspect refusal, a .jsonl file; each line has prompt and refuse."
    ),
]
Worked = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Worked answers for the aspect thinking, a .jsonl file; each line has prompt, steps and answer, or is of "
        "GSM8K.",
    ),
]
Audit = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Prompts, a line each or a .jsonl with prompt: what only rounded models answer to them (aspect rounding).",
    ),
]
Page = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write a page (HTML) that shows all of it.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16 or float16 to compute in; without it the one the folder names.",
        autocompletion=among("float32, bfloat16, float16"),
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, tell memory, disk and time; open no model.")]
Classes = Annotated[
    str,
    typer.Option(
        metavar="FIELD", help="The field of records that says what kind of document each is.", show_default=False
    ),
]
Streamed = Annotated[
    bool,
    typer.Option("--streamed", help="Keep LIGHTER's blocks on disk: memory for MODEL and one block is enough."),
]
Price = Annotated[
    float | None,
    typer.Option(help="What the machine costs an hour, in any currency; for --measure energy.", show_default=False),
]
Hours = Annotated[
    float | None,
    typer.Option(help="How long making LIGHTER took on such a machine: when that has paid.", show_default=False),
]
Watts = Annotated[
    float | None,
    typer.Option(help="Watts of a core that works; without it the counter.", show_default=False),
]
Carbon = Annotated[float, typer.Option(help="Grams of CO2 for a kilowatt-hour.")]


def run(
    original: Model,
    lighter: Annotated[
        Path, typer.Argument(metavar="LIGHTER", help="The folder or .gguf made from it.", show_default=False)
    ],
    text: Text = None,
    skills: Skills = None,
    field: Field = "text",
    classes: Classes = "",
    chat: Chat = False,
    skip_bad: SkipBad = False,
    limit: Limit = None,
    windows: Annotated[int, typer.Option(help="Windows of text to compare on; 0 takes all of it.", min=0)] = 256,
    window: Annotated[int, typer.Option(help="Tokens in a window.", min=8)] = 512,
    measure: Measure = None,
    beliefs: Beliefs = None,
    prompts: Prompts = None,
    refusals: Refusals = None,
    worked: Worked = None,
    audit: Audit = None,
    tasks: Tasks = None,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure speed and memory too.")] = True,
    page: Page = None,
    kv: Kv = None,
    precision: Precision = None,
    streamed: Streamed = False,
    price: Price = None,
    hours: Hours = None,
    watts: Watts = None,
    carbon: Carbon = GRAMS_A_KWH,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    dry_run: DryRun = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Measure what LIGHTER kept of MODEL, on text and skill by skill.

    Ends with 0 when every limit holds, 5 when one is broken, 4 when the material is too little to tell.
    """
    with Console(as_json) as console:
        folder = resolve(original)
        trusted(folder, trust_remote_code)
        given = {"refusal": refusals, "thinking": worked, "rounding": audit, "generation": prompts}
        given |= {"belief": beliefs, "susceptibility": beliefs}
        _check(folder, lighter, text, skills, given, page)
        result = whet.compare(
            folder,
            lighter,
            **material(folder, text, skills),
            field=field,
            classes=classes,
            chat=chat,
            skip_bad=skip_bad,
            limits=limits(limit),
            windows=windows or None,
            window=window,
            **chosen_with(folder, measure, given),
            tasks=[task.strip() for task in tasks.split(",") if task.strip()] if tasks else None,
            speed=speed,
            costs=Costs(price, hours, watts, carbon),
            seed=seed,
            device=device,
            dtype=dtype,
            kv=kv,
            precision=precision,
            streamed=streamed,
            dry_run=dry_run,
            on_event=console.on_event,
        )
        if dry_run:
            console.show(say("nothing"), needs(result).rich())
        else:
            report(console, result)
            _write_page(console, page, lighter, result, folder)
        console.result(result)
    return 0 if dry_run else EXIT_CODES[result["verdict"]]


def _check(
    folder: Path,
    lighter: Path,
    text: str | None,
    skills: Path | None,
    given: Mapping[str, Path | None],
    page: Path | None,
) -> None:
    """Raises UsageError for a path that leads nowhere, before anything slow is imported."""
    check_model(lighter)
    check_material(text, skills)
    check_files_of(given)
    if page is not None:
        check_output(page, folder, lighter, text, skills)


def _write_page(console: Console, page: Path | None, lighter: Path, result: dict[str, Any], original: Path) -> None:
    if page is None:
        return
    from whet.checkpoint import write_bytes

    write_bytes(page, drawn(lighter, result, original).encode())
    console.show(say("wrote", files=page))


def drawn(lighter: Path, result: dict[str, Any], original: Path, **more: Any) -> str:
    """The report page of a comparison, opened in the user's language. more: as for `whet.report.facts.facts`."""
    from whet.report import page
    from whet.report.facts import facts

    told = facts(lighter, compare=result, name="starter" if is_starter(original) else original.name, **more)
    return page(told, language())


def report(console: Console, result: dict[str, Any]) -> None:
    """The tables, the notes and the verdict."""
    console.show(*(sheet.rich() for sheet in comparison(result)))
    for note in [*(note for told in result["aspects"].values() for note in told["notes"]), *result["notes"]]:
        console.show(f"{say('note')}: {sentence(note)}")
    console.show(say(f"verdict.{result['verdict']}"))


def material(folder: Path, text: str | None, skills: Path | None) -> dict[str, Any]:
    """What to compare on; for the embedded model its own held-out text and skills where none were given."""
    if not is_starter(folder):
        return {"text": text, "skills": skills}
    from whet import starter

    return {
        "text": text if text is not None else starter.held_out(seed=0, count=2000),
        "skills": skills if skills is not None else starter.skills("report"),
    }


def limits(given: list[str] | None) -> dict[str, float | None]:
    """`["max_kl=0.05", "min_top1=off"]` as `{"max_kl": 0.05, "min_top1": None}`."""
    found: dict[str, float | None] = {}
    for item in given or []:
        name, _, value = item.partition("=")
        try:
            found[name.strip()] = None if value.strip() == "off" else float(value)
        except ValueError:
            raise UsageError(
                "--limit {item}: a limit is NAME=VALUE with a number, or off, such as max_kl=0.05.", item=item
            ) from None
    return found
