"""`whet compress`: a model folder in, a lighter folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Chat, Debug, Device, Field, Json, Model, Out, Seed, Text, Window
from whet.cli.phrases import say
from whet.cli.starter import calibration, is_starter, resolve
from whet.cli.tables import by_part, needs

EXAMPLE = "Example: whet compress MODEL lighter --scheme W4A16 --text corpus.jsonl --field text"


def run(
    model: Model,
    out: Out,
    scheme: Annotated[str, typer.Option(help="W4A16, W8A16, int4-g32, int3z-g64, int4s-g128, ...")] = "W4A16",
    embed: Annotated[
        str | None, typer.Option(help="The scheme of embedding and head; without it they stay as they are.")
    ] = None,
    solver: Annotated[str, typer.Option(help="gptq, or nearest, which needs no text.")] = "gptq",
    target: Annotated[
        str, typer.Option("--for", help="What is to load it: transformers, vllm or whet.")
    ] = "transformers",
    text: Text = None,
    field: Field = "text",
    chat: Chat = False,
    eval_text: Annotated[
        str | None, typer.Option("--eval", help="Text to verify on; without it a tenth of --text is kept for that.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Windows of text to calibrate on.", min=1)] = 128,
    window: Window = 2048,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, tell bytes, memory, disk and time; write nothing.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write a lighter copy of MODEL to OUT. Interrupted, it goes on with `whet resume OUT`."""
    folder = resolve(model)
    source: Any = calibration(samples, seed) if text is None and is_starter(folder) else text
    with Console(as_json, resume=out) as console:
        result = whet.compress(
            folder,
            out,
            scheme=scheme,
            embed=embed,
            solver=solver,
            target=target,
            text=source,
            field=field,
            chat=chat,
            eval_text=eval_text,
            samples=samples,
            window=window,
            seed=seed,
            device=device,
            dry_run=dry_run,
            on_event=console.on_event,
        )
        plan(console, result) if dry_run else made(console, result, folder)
        console.result(result)
    return 0


def plan(console: Console, result: dict[str, Any]) -> None:
    """What a dry run found."""
    console.show(say("planned"))
    console.show(by_part(result["bytes"]["before"], result["bytes"]["after"], "sum").rich(), needs(result).rich())
    for note in result["notes"]:
        console.show(f"{say('note')}: {note}")


def made(console: Console, result: dict[str, Any], model: Path | None = None) -> None:
    """What was written, how far it is from the original, who loads it, and what to type next."""
    console.show(by_part(result["sizes"]["original"], result["sizes"]["lighter"], "size").rich())
    if "kl" in result:
        console.show(say("verified", kl=f"{result['kl']:.4f}", top1=f"{100 * result['top1']:.1f} %"))
    console.show(say("made", out=result["out"]), say(f"loads.{result['loads_in']}"))
    if model is not None:
        given = "" if is_starter(model) else " --text FILE --skills FILE"
        console.show(say("next", command=f"whet compare {model} {result['out']}{given}"))
