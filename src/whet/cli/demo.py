"""`whet demo`: the main job on the embedded model, with nothing to download.

Writes `lighter/`, `compare.json`, `report.html` with every figure and what each block carries, `skills.svg` and
`README.md`, which shows the figures and what both models say to the same prompts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import typer

import whet
from whet.cli import compare, compress
from whet.cli.completion import among
from whet.cli.console import Console, plain
from whet.cli.options import Debug, Device, Json, Seed
from whet.cli.phrases import say, sentence, size
from whet.cli.picture import skills_svg
from whet.cli.starter import calibration
from whet.cli.tables import Sheet, comparison
from whet.errors import UsageError
from whet.events import Part, Way
from whet.paths import check_out, check_output
from whet.steps.options import SCHEMES

EXAMPLE = "Example: whet demo demo --fit 25%"
FIT = "30%"
SAMPLES, WINDOW = 512, 256
DOCUMENTS, PER_SKILL, SCORED = 1000, 1000, 32
FILES = ("README.md", "skills.svg", "compare.json", "report.html")
OPENING_WORDS, STORY_TOKENS = 10, 60


Scheme = Annotated[
    str | None,
    typer.Option(
        help="Instead of a budget one scheme of all linears, such as int4-g32.", autocompletion=among(SCHEMES)
    ),
]


def run(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="The folder to write.")] = Path("demo"),
    fit: Annotated[str, typer.Option(help="The most bytes of the weight files.")] = FIT,
    scheme: Scheme = None,
    embed: Annotated[
        str | None, typer.Option(help="With --scheme: that of embedding and head.", autocompletion=among(SCHEMES))
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what compressing takes; write nothing.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Compress the embedded model, compare it with the original, and show what it kept."""
    lighter = out / "lighter"
    with Console(as_json, resume=lighter, again=f"whet demo {out}") as console:
        from whet import starter
        from whet.checkpoint import write_bytes

        model = starter.path()
        _check_places(out, model)
        way = Way(console.on_event, [Part("compress", 8), Part("compare", 3), Part("inspect", 1)], timed=False)
        if not dry_run:
            clear(lighter)
        asked: dict[str, Any] = {"embed": embed}
        asked |= {"fit": fit, "target": "whet"} if scheme is None else {"scheme": scheme}
        made = whet.compress(
            model,
            lighter,
            **asked,
            text=calibration(SAMPLES, seed),
            samples=SAMPLES,
            window=WINDOW,
            seed=seed,
            device=device,
            dry_run=dry_run,
            on_event=way.part("compress"),
        )
        if dry_run:
            compress.plan(console, made)
            console.result(made)
            return 0
        items = starter.skills("report", PER_SKILL, seed)
        result = whet.compare(
            model,
            lighter,
            text=starter.held_out(seed, DOCUMENTS),
            skills=items,
            windows=None,
            window=WINDOW,
            seed=seed,
            device=device,
            on_event=way.part("compare"),
        )
        scores = whet.inspect(
            model,
            text=calibration(SAMPLES, seed),
            skills=starter.skills("solve", SCORED, seed),
            **{"samples": SAMPLES, "window": WINDOW, "seed": seed, "device": device},
            spectra=False,
            on_event=way.part("inspect"),
        )
        samples = _samples(model, lighter, items, device)
        stories = _stories(model, lighter, starter.held_out(seed, 200), device)
        whole = {"compress": made, **result}
        contents = (
            page(made, result, samples, stories),
            picture(result),
            json.dumps(plain(whole), ensure_ascii=False, indent=2) + "\n",
            compare.drawn(lighter, result, model, scores=scores),
        )
        for name, content in zip(FILES, contents, strict=True):
            write_bytes(out / name, content.encode())
        console.show(samples.rich())
        compare.report(console, result)
        console.show(say("demo.wrote", files=", ".join([f"{lighter}/", *(str(out / name) for name in FILES)])))
        console.result(whole)
    verdict = result["verdict"]
    return 0 if verdict == "inconclusive" else compare.EXIT_CODES[verdict]  # it shows a model and decides about none


def _check_places(out: Path, model: Path) -> None:
    """Raises where what the demo writes has no place, before anything long."""
    check_out(out, model)
    for name in FILES if out.is_dir() else ():
        check_output(out / name)


def picture(result: dict[str, Any]) -> str:
    """The skills as SVG, the legend with the sizes."""
    rows = [(e["skill"], e["original"]["accuracy"], e["lighter"]["accuracy"]) for e in result["skills"]]
    legend = [f"{say(which)}, {size(result['size'][which]['total'])}" for which in ("original", "lighter")]
    return skills_svg(rows, *legend)


def page(made: dict[str, Any], result: dict[str, Any], samples: Sheet, stories: list[dict[str, str]]) -> str:
    """README.md of the demo's folder."""
    where = result["environment"]
    machine = where["gpu"] or where["processor"]
    versions = {name: where[name] for name in ("threads", "torch", "transformers")}
    verdict = say(f"verdict.{result['verdict']}")
    parts = [
        f"# {say('demo.title')}",
        say("demo.how", how=_how(made), machine=machine, **versions),
        f"**{verdict}**",
        "![](skills.svg)",
    ]
    for sheet in comparison(result):
        parts += [f"## {sheet.title}", sheet.markdown()]
    parts += [f"- {sentence(note)}" for note in result["notes"]]
    parts += [f"## {say('demo.samples')}", samples.markdown(), f"### {say('demo.stories')}"]
    for story in stories:
        parts += [f"> **{story['prompt']}**", *(f"{say(who)}: {story[who]}" for who in ("original", "lighter"))]
    return "\n\n".join(parts) + "\n"


def _how(made: dict[str, Any]) -> str:
    """The options it was compressed with."""
    if made["scheme"] is None:
        return str(made["plan"]["budget"]["asked"])
    return f"--scheme {made['scheme']}" + (f" --embed {made['embed']}" if made["embed"] else "")


def _samples(model: Path, lighter: Path, items: list[dict[str, Any]], device: str) -> Sheet:
    """One question of each skill, the right answer and both models' answers."""
    from whet.engines.torch import open_model
    from whet.measure.items import read_skills
    from whet.measure.skills import score

    first = read_skills(list({item["skill"]: item for item in reversed(items)}.values())[::-1])
    answers = [score(open_model(folder, device), first) for folder in (model, lighter)]
    headings = [say("skill"), say("demo.prompt"), say("demo.expected"), say("original"), say("lighter")]
    sheet = Sheet(say("demo.samples"), headings, words=True)
    for item, before, after in zip(first, *answers, strict=True):
        right = item.choices[item.label] if item.choices else item.answer or ""
        cells = [item.skill, item.prompt, right, before.answer, after.answer]
        sheet.rows.append([shorten(cell, 80, placeholder=" …") for cell in cells])
    return sheet


def _stories(model: Path, lighter: Path, documents: list[str], device: str) -> list[dict[str, str]]:
    """How both go on with the beginning of an English and a Korean story that training never saw."""
    from whet.starter.stories import OPENING

    stories = []
    for opening in OPENING.values():
        story = next(document for document in documents if document.startswith(opening))
        prompt = " ".join(story.split()[:OPENING_WORDS])
        told = {
            who: whet.generate(folder, prompt, max_new_tokens=STORY_TOKENS, device=device)
            for who, folder in (("original", model), ("lighter", lighter))
        }
        stories.append({"prompt": prompt, **{who: " ".join(text.split()) for who, text in told.items()}})
    return stories


def clear(lighter: Path) -> None:
    """Remove what an earlier demo finished; what it left unfinished is gone on with."""
    if (lighter / "whet.json").is_file() and not (lighter / ".whet").exists():
        shutil.rmtree(lighter)
    elif lighter.exists() and not (lighter / ".whet").exists():
        raise UsageError(
            "{folder} is there and was not made by whet. Name another folder: whet demo OTHER.", folder=lighter
        )
