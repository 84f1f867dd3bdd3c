"""`whet fit-context`: what keys and values are kept in so that a context fits, and the flags that say so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Device, Field, Json, Model, Seed, Text
from whet.cli.phrases import say, sentence, size
from whet.cli.starter import is_starter, resolve
from whet.cli.tables import Sheet

EXAMPLE = "Example: whet fit-context lighter --context 32k --memory 6GB --text held-out.txt"


def run(
    folder: Model,
    context: Annotated[str, typer.Option(help="Tokens of a sequence: 32768, or 32k.", show_default=False)],
    memory: Annotated[str, typer.Option(help="For weights and cache: 6GB, 512MiB.", show_default=False)],
    text: Text = None,
    field: Field = "text",
    sequences: Annotated[int, typer.Option(help="Sequences at a time.", min=1)] = 1,
    window: Annotated[int, typer.Option(help="Tokens of a window that losses are measured on.", min=64)] = 2048,
    windows: Annotated[int, typer.Option(help="Such windows.", min=1)] = 4,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Find what layers keep keys and values in so that a context fits into memory, losing least; print the flags."""
    model = resolve(folder)
    given: Any = text
    if text is None and is_starter(Path(model)):
        from whet import starter

        given = starter.held_out(seed=0, count=400)
    with Console(as_json) as console:
        found = whet.fit_context(
            model,
            context=context,
            memory=memory,
            text=given,
            field=field,
            sequences=sequences,
            window=window,
            windows=windows,
            seed=seed,
            device=device,
            on_event=console.on_event,
        )
        console.show(kept(found).rich())
        for name, one in found["runtimes"].items():
            console.show(f"{name}: {one['flags']}")
        for note in found["notes"]:
            console.show(f"{say('note')}: {sentence(note)}")
        console.result(found)
    return 0 if any(one["fits"] for one in found["runtimes"].values()) else 5


def kept(found: dict[str, Any]) -> Sheet:
    """What each runtime keeps, what that takes and loses."""
    columns = ["", say("context.kept"), say("context.bytes"), say("context.fits"), "KL", say("context.most")]
    sheet = Sheet(say("context.title", weights=size(found["weights"]), room=size(found["room"])), columns)
    for name, one in found["runtimes"].items():
        kinds = one["kinds"]
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        fits = say("context.yes") if one["fits"] else say("context.no")
        sheet.rows.append([name, counted, size(one["bytes"]), fits, f"{one['kl']:.2e}", f"{one['most_tokens']:,}"])
    return sheet
