"""`whet compress`: a model folder in, a lighter folder out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.completion import PRESETS, models, recipes
from whet.cli.console import Console
from whet.cli.export import proved
from whet.cli.options import Debug, Json, Trust, takes, trusted
from whet.cli.phrases import say, sentence, size
from whet.cli.running import run_lines
from whet.cli.starter import calibration, check_material, is_starter, resolve
from whet.cli.tables import answered, by_part, needs, precisions
from whet.errors import UsageError
from whet.events import Event
from whet.report.numbers import figure
from whet.steps.options import SAMPLES
from whet.steps.verbs import Compress

EXAMPLE = "Example: whet compress MODEL lighter --scheme W4A16 --text corpus.jsonl --field text"
ITEMS = 400  # of each of the embedded model's skills, to keep a quality by


@takes(Compress)
def run(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="A Hugging Face folder, or `starter`: the embedded one.", autocompletion=models
        ),
    ] = None,
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="The folder to write, new or empty.")] = None,
    *,
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"All of this as a .yaml file, or a preset: {PRESETS}. Options go over it.", autocompletion=recipes
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, tell bytes, memory, disk and time; write nothing.")
    ] = False,
    check_weights: Annotated[
        bool,
        typer.Option("--check-weights", help="With --dry-run: read every weight too, none may be NaN or infinite."),
    ] = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
    **options: Any,
) -> int:
    """Write a lighter copy of MODEL to OUT. Interrupted, it goes on with `whet resume OUT`."""
    options |= {"model": model, "out": out}
    told: list[Event] = []
    if recipe is not None:
        from whet.recipe.schema import recipe_arguments

        typed = {key: value for key, value in options.items() if typed_by_user(context, key)}
        options |= recipe_arguments(recipe, typed, told.append)
    folder, lighter = _places(options.pop("model"), options.pop("out"))
    trusted(folder, trust_remote_code)
    check_material(options["text"], options["skills"])
    if options["text"] is None and is_starter(folder):
        options["text"] = calibration(options["samples"] or SAMPLES, options["seed"])
        if options["quality"] is not None and options["skills"] is None:
            from whet import starter

            options["skills"] = starter.skills("verify", ITEMS, options["seed"])
    with Console(as_json, resume=lighter) as console:
        for event in told:
            console.on_event(event)
        if check_weights:
            options["check_weights"] = True
        result = whet.compress(folder, lighter, **options, dry_run=dry_run, on_event=console.on_event)
        plan(console, result) if dry_run else made(console, result, folder)
        console.result(result)
    return 0


def typed_by_user(context: typer.Context, key: str) -> bool:
    """Whether the user gave what goes into the argument `key`, rather than leaving it at its default."""
    source = context.get_parameter_source(key)
    return source is not None and source.name == "COMMANDLINE"


def _places(model: str | None, out: str | Path | None) -> tuple[Path, Path]:
    """The original's folder and the lighter's, from the command line or the recipe."""
    if model is None or out is None:
        raise UsageError(
            "{name} is missing: give the folder, or a recipe that names it (--recipe FILE). See `{command} --help`.",
            name="MODEL" if model is None else "OUT",
            command="whet compress",
        )
    return resolve(model), Path(out)


def plan(console: Console, result: dict[str, Any]) -> None:
    """What a dry run found."""
    console.show(say("planned"))
    console.show(by_part(result["bytes"]["before"], result["bytes"]["after"], "sum").rich(), needs(result).rich())
    foretold(console, result)
    for note in result["notes"]:
        console.show(f"{say('note')}: {sentence(note)}")


def foretold(console: Console, result: dict[str, Any]) -> None:
    """What the plan said beforehand, where there is one that says anything."""
    said = (result.get("plan") or {}).get("predicted")
    if said is not None and said["kl"] is not None:
        console.show(say("foretold", bits=f"{said['bits']:.2f}", size=size(said["bytes"]), kl=figure(said["kl"])))


def timed(console: Console, result: dict[str, Any]) -> None:
    """What a token takes, as predicted and as the finished file was timed, where time was asked for."""
    time = result.get("time") or (result.get("plan") or {}).get("time")
    if time is None or time["predicted"] is None:
        return
    limit = "" if time["limit"] is None else say("plan.limit", limit=f"{1e3 * time['limit']:.3g}")
    told = {"predicted": f"{1e3 * time['predicted']:.3g}", "speedup": f"{time['sixteen'] / time['predicted']:.2f}"}
    console.show(say("plan.time", **told, runtime=time["runtime"], limit=limit))
    if (measured := time.get("measured")) is not None:
        off = f"{100 * (measured['then'] / time['predicted'] - 1):+.0f} %"
        milliseconds = {name: f"{1e3 * measured[name]:.3g}" for name in ("then", "now")}
        console.show(say("made.time", off=off, **milliseconds))


def made(console: Console, result: dict[str, Any], model: Path | None = None) -> None:
    """What was written, how far it is from the original, who loads it, and what to type next."""
    console.show(by_part(result["sizes"]["original"], result["sizes"]["lighter"], "size").rich())
    foretold(console, result)
    timed(console, result)
    masked = [(math.prod(x["shape"]), x["mask"]["share"]) for x in result.get("linears", {}).values() if "mask" in x]
    if masked:
        share = sum(size * share for size, share in masked) / sum(size for size, _ in masked)
        console.show(say("masked", linears=len(masked), share=f"{100 * share:.3g} %"))
    if "answers" in result:
        console.show(answered(result["answers"]))
    elif "kl" in result:
        console.show(say("verified", kl=figure(result["kl"]), top1=f"{100 * result['top1']:.1f} %"))
    if "levels" in result:
        console.show(precisions(result["levels"]).rich())
    loads = "dense" if result.get("container") == "dense" else result["loads_in"]
    console.show(say("made", out=result["out"]), say(f"loads.{loads}"))
    if result.get("repair") and loads != "gguf":
        console.show(say("adapter", folder=f"{result['out']}/adapter"))
    check = result.get("check") or {}
    if (written := check.get("gguf") or check.get("graph")) is not None:
        console.show(*proved(written))
    lighter = result["out"]
    if written is not None and loads in ("dense", "modelling file", "transformers"):
        lighter = f"{lighter}/{written.get('file', 'model.gguf')}"
    if model is not None:
        given = "" if is_starter(model) else " --text FILE --skills FILE"
        console.show(say("next", command=f"whet compare {model} {lighter}{given}"))
    console.show(*run_lines(result))
