"""`whet generate`: continue a prompt with the original or the lighter model."""

from __future__ import annotations

from typing import Annotated

import typer

from whet.cli.console import Console
from whet.cli.options import Debug, Device, Fast, Json, Kv, Model, Packed, Seed, Trust, trusted
from whet.cli.phrases import percent, sentence
from whet.cli.starter import resolve
from whet.errors import verb
from whet.messages import Message

Draft = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="A lighter model that guesses tokens for this one to verify: the same answer, faster."
    ),
]

EXAMPLE = 'Example: whet generate lighter "Once upon a time" --max-new-tokens 60'


def run(
    folder: Model,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.", show_default=False)],
    max_new_tokens: Annotated[int, typer.Option(help="Stop after so many tokens.", min=1)] = 100,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.", min=0.0)] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that together reach this share.")] = 1.0,
    seed: Seed = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Ask with the model's chat template.")] = False,
    fast: Fast = False,
    packed: Packed = False,
    kv: Kv = None,
    device: Device = "auto",
    draft: Draft = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Continue a prompt with any model folder, original or lighter, or with a .gguf."""
    model = resolve(folder)
    trusted(model, trust_remote_code)
    drafting = None if draft is None else resolve(draft)
    from whet.engines.opening import Wanted, continued

    with Console(as_json) as console:
        text, done = verb(continued)(
            model,
            prompt,
            Wanted(max_new_tokens, temperature, top_p, seed, chat),
            device=device,
            fast=fast,
            packed=packed,
            draft=drafting,
            kv=kv,
            on_event=console.on_event,
        )
        console.show(text if chat else prompt + text)
        result = {"model": folder, "prompt": prompt, "text": text, "temperature": temperature, "seed": seed}
        if done is not None:
            rate = len(done.ids) / max(done.seconds, 1e-9)
            told = Message(
                "Tokens that the draft guessed: {count}, kept: {share}. {rate:.1f} tokens a second.",
                count=done.proposed,
                share=percent(done.kept / max(1, done.proposed)),
                rate=rate,
            )
            console.line(sentence(told))
            drafted = {"proposed": done.proposed, "kept": done.kept, "tokens_per_second": rate}
            result |= {"draft": {"model": draft, **drafted}}
        console.result(result)
    return 0
