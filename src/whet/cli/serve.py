"""`whet serve`: the lighter model into production, 5 % of the users first."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from whet.cli.completion import among
from whet.cli.console import Console
from whet.cli.options import Debug, Device, Json, Model, Trust
from whet.cli.phrases import duration, percent, sentence
from whet.cli.starter import is_starter, resolve
from whet.errors import MachineError, UsageError
from whet.messages import Message
from whet.paths import check_file, check_model, check_text
from whet.steps.option_kinds import parse_precisions

Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16 or float16 to compute in; without it the one the folder names.",
        autocompletion=among("float32, bfloat16, float16"),
    ),
]
Lighter = Annotated[
    str, typer.Argument(metavar="LIGHTER", help="The folder or .gguf made from it, or a URL.", show_default=False)
]
State = Annotated[Path, typer.Option(help="Folder for the state of the roll-out and the admin's key.")]
Fast = Annotated[
    bool, typer.Option("--fast", help="Keep LIGHTER packed in memory, where PyTorch has a kernel for its codes.")
]
Precisions = Annotated[
    str | None,
    typer.Option(
        metavar="BITS",
        help="With --fast: of a LIGHTER of several precisions, fewer bits while requests wait; the last is the floor.",
        autocompletion=among("8,4"),
    ),
]
Threads = Annotated[int | None, typer.Option(help="Threads of the processor for each model.", min=1)]
Host = Annotated[str, typer.Option(help="Address to listen on; beyond this machine only with --keys.")]
MinAgreement = Annotated[
    float, typer.Option(help="Share of the original's tokens that the lighter model must choose too.")
]
KeepPairs = Annotated[
    int, typer.Option(help="Answers that differ, kept for an hour in memory, for /dashboard.", min=0, max=200)
]
RequestsPerMinute = Annotated[int, typer.Option(help="Requests a minute that each key may make.", min=1)]
TokensPerMinute = Annotated[int, typer.Option(help="Tokens a minute that each key may have, prompts too.", min=1)]
Requests = Annotated[int, typer.Option(help="Requests of the lighter model that a step takes at least.", min=1)]
Draft = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A model that guesses tokens for MODEL to verify; LIGHTER, or a smaller one."),
]
Escalate = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE", help="Let MODEL go on where LIGHTER is unsure, so that harmful flips stay below SHARE, as 1%."
    ),
]
Text = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What LIGHTER was calibrated on; prompts that are unlike it are named."),
]
Skills = Annotated[
    Path | None,
    typer.Option(help="Questions with answers (.jsonl) to ask of both; --escalate chooses its threshold on them."),
]
Replay = Annotated[float, typer.Option(help="Seconds between two of these questions; 0 asks none.", min=0.0)]
Watts = Annotated[float | None, typer.Option(help="What the machine draws while it answers.", min=0.0)]
Hourly = Annotated[
    float | None, typer.Option(help="What an hour of the machine costs, to tell the money that is saved.", min=0.0)
]
Compress = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Keep this share of prompts, where x-whet-compress does not say another."),
]
AllowDifferences = Annotated[
    bool,
    typer.Option("--allow-differences", help="Serve LIGHTER with another tokenizer, template or setting than MODEL's."),
]
_DOCUMENTS = 2000  # of the text, which prompts are compared with
EXAMPLE = "Example: whet serve MODEL lighter --port 8000"


def run(
    original: Model,
    lighter: Lighter,
    state: State = Path("whet-serve"),
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    name: Annotated[str | None, typer.Option(help="The model's name for clients; MODEL's own without it.")] = None,
    keys: Annotated[Path | None, typer.Option(help="A file with a name and the SHA-256 of a key on each line.")] = None,
    steps: Annotated[str, typer.Option(help="Percent of users at each step after Shadow.")] = "5,10,25,50,100",
    hold: Annotated[float, typer.Option(help="Seconds that a step takes at least.", min=0.0)] = 600.0,
    requests: Requests = 200,
    pairs: Annotated[int, typer.Option(help="Comparisons that Shadow takes at least.", min=1)] = 200,
    min_agreement: MinAgreement = 0.85,
    margin: Annotated[float, typer.Option(help="How far below that is a failure.")] = 0.02,
    sample: Annotated[float, typer.Option(help="Share of requests that both models answer, after Shadow.")] = 0.1,
    keep_pairs: KeepPairs = 0,
    slots: Annotated[int, typer.Option(help="Answers at once, of each model.", min=1, max=256)] = 4,
    queue: Annotated[int, typer.Option(help="Requests that may wait for each model; more get 429.", min=1)] = 64,
    requests_per_minute: RequestsPerMinute = 600,
    tokens_per_minute: TokensPerMinute = 200_000,
    max_tokens: Annotated[int, typer.Option(help="Tokens that an answer may have at most.", min=1)] = 4096,
    context: Annotated[int, typer.Option(help="Tokens that a prompt with its answer may have at most.", min=8)] = 8192,
    device: Device = "auto",
    dtype: Dtype = None,
    fast: Fast = False,
    precisions: Precisions = None,
    threads: Threads = None,
    draft: Draft = None,
    escalate: Escalate = None,
    skills: Skills = None,
    replay: Replay = 2.0,
    text: Text = None,
    compress: Compress = None,
    watts: Watts = None,
    hourly: Hourly = None,
    allow_differences: AllowDifferences = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Serve LIGHTER in MODEL's place: 5 % of users first, then more as it proves itself, or none.

    MODEL and LIGHTER may also be URLs of OpenAI-compatible servers.
    """
    require("serve")
    from whet.serving.rules import Rules
    from whet.serving.saving import Worth
    from whet.serving.server import Serving, serve
    from whet.serving.sides import Limits

    with Console(as_json) as console:
        folder, draft = _named(original), draft and _named(draft)
        _check(lighter, [(keys, Message("keys")), (skills, Message("skills"))], text)
        share = None if escalate is None else _share(escalate)
        questions = skills or (_own_skills(Path(folder), state) if share is not None or replay else None)
        each = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        console.line(sentence(Message("Opening both models.")))
        at: dict[str, Any] = {"host": host, "port": port, "name": name, "keys": keys, "slots": slots, "sample": sample}
        opened: dict[str, Any] = {"device": device, "dtype": dtype, "threads": threads, "fast": fast, "most": context}
        live: dict[str, Any] = {"escalate": share, "skills": questions, "replay": replay, "compress": compress}
        asked = Serving(
            folder,
            lighter,
            state,
            **at,
            **opened,
            **live,
            rules=Rules(steps_of(steps), hold, requests, pairs, min_agreement, margin),
            limits=Limits(waiting=queue, tokens=max_tokens, **each),
            pairs=keep_pairs,
            trust_remote_code=trust_remote_code,
            draft=draft,
            worth=Worth(watts, hourly),
            precisions=() if precisions is None else parse_precisions(precisions),
            allow_differences=allow_differences,
            drift=None if text is None else drift_from(text),
        )
        serve(asked, partial(_tell, console, state))
    return 0


def _named(model: str | Path) -> str:
    """The folder that a model's name means; a URL as it is."""
    said = str(model)
    return said if said.startswith(("http://", "https://")) else str(resolve(model))


def _check(lighter: str, files: list[tuple[Path | None, Message]], text: str | None) -> None:
    """Raises UsageError for a path that leads nowhere."""
    if not lighter.startswith(("http://", "https://")):
        check_model(lighter)
    for file, name in files:
        if file is not None:
            check_file(file, name)
    if text is not None:
        check_text(text)


def _tell(console: Console, state: Path, event: str, values: dict[str, Any]) -> None:
    """Show what is going on."""
    if event == "choosing":
        console.line(sentence(Message("Both models answer the questions of {skills}.", **values)))
        return
    console.show(*_lines(event, values, state))
    console.result({"event": event, **values})


def require(verb: str) -> None:
    """Raises MachineError where the extra is not installed."""
    try:
        import httpx  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MachineError(
            "whet {verb} needs packages that are not installed ({error}). Install them: pip install 'whet[serve]'",
            verb=verb,
            error=error,
        ) from error


def _share(said: str) -> float:
    """`1%` or `0.01`. Raises UsageError."""
    try:
        return float(said[:-1]) / 100 if said.strip().endswith("%") else float(said)
    except ValueError as error:
        raise UsageError("{said} is no share. Say --escalate 1%, or 0.01.", said=said) from error


def _own_skills(folder: Path, state: Path) -> Path | None:
    """The embedded model's own questions, written to a file; None for others."""
    if not is_starter(folder):
        return None
    from whet import starter

    state.mkdir(parents=True, exist_ok=True)
    file = state / "questions.jsonl"
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in starter.skills("verify")]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def drift_from(text: str) -> Any:
    """What prompts are compared with: the mean profile of a text's documents."""
    from whet.serving.manner import Drift, kinds_of, mean_of
    from whet.text.readers import read_text

    found = read_text(text).documents
    return Drift(mean_of(kinds_of(document) for document in found[:_DOCUMENTS]))


def steps_of(said: str) -> tuple[float, ...]:
    """`5,10,100` as numbers. Raises UsageError."""
    try:
        return tuple(float(part) for part in said.split(","))
    except ValueError as error:
        raise UsageError(
            "Steps {steps} are not numbers with commas between. Say 5,10,25,50,100.", steps=said
        ) from error


def _lines(event: str, values: dict[str, Any], state: Path) -> list[str]:
    told = [
        Message("Serving {model} at {url}/v1", model=values["model"], url=values["url"]),
        Message("The lighter model serves {share} of the users.", share=percent(values["weight"] / 100)),
        Message("Dashboard: {url}/dashboard", url=values["url"]),
        Message("See how it goes: {command}", command=f"whet rollout status --state {shlex.quote(str(state))}"),
    ]
    if values["seconds"] is not None:
        told.append(Message("If the original ends, it is back after about {time}.", time=duration(values["seconds"])))
    if (draft := values["draft"]) is not None:
        line = Message(
            "With the draft the original writes {times:.2f} times as fast, word for word the same.",
            times=draft["drafted"] / draft["alone"],
        )
        told.append(line)
    if (chosen := values["escalation"]) is not None:
        line = Message(
            "Where the lighter model is unsure, the original goes on: in {share} of {count} questions. Harmful flips "
            "are below {limit}, 95 % sure.",
            share=percent(chosen["escalated"]),
            count=chosen["questions"],
            limit=percent(chosen["limit"]),
        )
        told.append(line)
    return [sentence(line) for line in told]
