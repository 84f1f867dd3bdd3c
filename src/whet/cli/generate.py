"""`whet generate`: continue a prompt with the original or the lighter model."""

from __future__ import annotations

from typing import Annotated

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Device, Json, Kv, Model, Seed, Trust, trusted
from whet.cli.starter import resolve

EXAMPLE = 'Example: whet generate lighter "Once upon a time" --max-new-tokens 60'


def run(
    folder: Model,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.", show_default=False)],
    max_new_tokens: Annotated[int, typer.Option(help="Stop after so many tokens.", min=1)] = 100,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.", min=0.0)] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that together reach this share.")] = 1.0,
    seed: Seed = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Ask with the model's chat template.")] = False,
    kv: Kv = None,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Continue a prompt with any model folder, original or lighter, or with a .gguf."""
    model = resolve(folder)
    trusted(model, trust_remote_code)
    with Console(as_json) as console:
        text = whet.generate(
            model,
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            chat=chat,
            device=device,
            kv=kv,
            on_event=console.on_event,
        )
        console.show(text if chat else prompt + text)
        console.result({"model": folder, "prompt": prompt, "text": text, "temperature": temperature, "seed": seed})
    return 0
