"""`whet generate`: continue a prompt with the original or the lighter model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import whet
from whet.cli.console import Console
from whet.cli.options import Debug, Device, Fast, Json, Kv, Model, Packed, Precision, Seed, Trust, trusted
from whet.cli.phrases import percent, sentence, size
from whet.cli.starter import resolve
from whet.events import Event
from whet.messages import Message

Draft = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="A lighter model that guesses tokens for this one to verify: the same answer, faster."
    ),
]
Active = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE", help="Of a folder of whet dynamic: the share of channels that a prompt chooses: 50%."
    ),
]
Task = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="With --active: choose channels by this text instead, for every prompt alike."),
]
EarlyExit = Annotated[
    bool, typer.Option("--early-exit", help="Of a folder of whet dynamic: tokens leave where they are sure.")
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
    precision: Precision = None,
    device: Device = "auto",
    draft: Draft = None,
    active: Active = None,
    task: Task = None,
    early_exit: EarlyExit = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Continue a prompt with any model folder, original or lighter, or with a .gguf."""
    model = resolve(folder)
    trusted(model, trust_remote_code)
    drafting = None if draft is None else resolve(draft)
    drafted: dict[str, Any] = {}
    decided: dict[str, Any] = {}

    with Console(as_json) as console:

        def tell(event: Event) -> None:
            if event["event"] == "drafted":
                drafted.update(event)
            elif event["event"] == "dynamic":
                decided.update(event)
            else:
                console.on_event(event)

        text = whet.generate(
            model,
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            chat=chat,
            device=device,
            fast=fast,
            packed=packed,
            kv=kv,
            precision=precision,
            draft=drafting,
            active=active,
            task=task,
            early_exit=early_exit,
            on_event=tell,
        )
        console.show(text if chat else prompt + text)
        result = {"model": folder, "prompt": prompt, "text": text, "temperature": temperature, "seed": seed}
        if drafted:
            told = Message(
                "Tokens that the draft guessed: {count}, kept: {share}. {rate:.1f} tokens a second.",
                count=drafted["proposed"],
                share=percent(drafted["kept"] / max(1, drafted["proposed"])),
                rate=drafted["tokens_per_second"],
            )
            console.line(sentence(told))
            figures = {name: drafted[name] for name in ("proposed", "kept", "tokens_per_second")}
            result |= {"draft": {"model": draft, **figures}}
        if decided:
            console.line(sentence(_decided(decided)))
            result |= {"dynamic": {name: value for name, value in decided.items() if name != "event"}}
        console.result(result)
    return 0


def _decided(event: dict[str, Any]) -> Message:
    """What of the model was used."""
    if "channels" in event:
        return Message(
            "Channels of a block: {channels} of {of}. In use {used}, stored {stored}.",
            channels=event["channels"],
            of=event["of"],
            used=size(event["bytes"]),
            stored=size(event["stored"]),
        )
    return Message(
        "Blocks read for a token: {read:.2f} of {of}, for {tokens} tokens.",
        read=event["read"],
        of=event["of"],
        tokens=event["tokens"],
    )
