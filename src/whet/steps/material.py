"""The text that a step calibrates on: read and cut into windows; and what the original writes itself, which is all
there is where no text is given, or more beside what is given.

Without text each sample starts from one token of the vocabulary, drawn with the seed, goes on greedily for a few
tokens, so that the start becomes a likely one, and is sampled at temperature 1 from there (LLM-QAT, Liu et al. 2023,
arXiv 2305.17888). Beside text each starts from a piece of that text, so that it stays within its subjects and
languages. What trains codes and scales learns little text by heart: of a model of a million parameters `tuned` on 2
bits lost 0.174 nats with 8,192 tokens of text, and with 65,536 or 131,072 more that the model had written 0.134 and
0.137.
"""

from __future__ import annotations

import dataclasses
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Anatomy
from whet.apply.job import Job
from whet.checkpoint import Checkpoint, context_length
from whet.checkpoint.memory import check_fits
from whet.engines.torch import open_model
from whet.errors import UsageError
from whet.events import OnEvent, note_event
from whet.messages import Message
from whet.steps.options import Distill, Dynamic, Masks, Prune, Quantize, Tune
from whet.text.calibration import Windows, read_windows, verify_count
from whet.train import tokens_of

# Tokens to solve on, at least so many and for each column of the widest input. A model of a million parameters and
# inputs of up to 352 columns lost as much on 3 and 2 bits with 8,192 tokens as with 131,072.
_HELPFUL, _A_COLUMN = 1 << 16, 64
_TAUGHT = 1 << 18  # tokens that a teacher writes where there is no text; a student sees them several times
_GREEDY = 4
_SHORTEST = 8
# Share of a window that is a piece of the text, from which what is written beside it starts. KL of the model above
# with a quarter 0.129, with a sixteenth 0.137.
_PIECE = 0.25
_ROUNDS = 16  # times that more is written where texts end early

Calibrated = Quantize | Masks | Prune | Distill


@dataclass(frozen=True)
class Material:
    """Windows of tokens, int64, to solve and verify on; what the lineage tells of them, and what a person should know;
    and tokens that the original is still to write (`to_write`), `synthetic` of them beside the text."""

    solve: Sequence[Tensor] = ()
    verify: Sequence[Tensor] = ()
    about: Mapping[str, Any] | None = None
    to_write: int = 0
    synthetic: int = 0
    notes: tuple[Message, ...] = ()


def read_material(
    asked: Calibrated, checkpoint: Checkpoint, parts: Anatomy, seed: int, *, needed: bool, instead: str
) -> Material:
    """The windows of the text. Without any, nothing, or where some is `needed` as much as the original is to write.

    instead: the options that need no text. Raises UsageError where there is none and the original cannot write.
    """
    if asked.text is None:
        if not needed:
            return Material()
        if parts.task != "causal":
            raise UsageError(
                "No text was given, and {checkpoint} does not write any by itself. Give --text FILE of the kind the "
                "model is used for, or {instead}, which needs none.",
                checkpoint=checkpoint.path.name,
                instead=instead,
            )
        check_fits(checkpoint)
        window = min(asked.window, context_length(checkpoint) or asked.window)
        about = {"source": "written by the model itself", "window": window}
        return Material(about=about, to_write=min(asked.most_samples, -(-_helpful(asked, parts) // window)) * window)
    found = windows_of(asked, checkpoint, seed)
    solve, verify, about = found.solve, found.verify, found.about
    if "tokens" in about:  # cut here, in the order they were drawn
        solve = _first(solve, _helpful(asked, parts))
        about |= {"windows": len(solve), "tokens": sum(map(len, solve))}
    _check_windows(checkpoint, parts, (*solve, *verify), weighted=isinstance(asked, Distill))
    return Material(solve, verify, about, notes=found.notes)


def windows_of(
    asked: Calibrated | Tune | Dynamic, checkpoint: Checkpoint, seed: int, verify: int | None = None
) -> Windows:
    """The windows of the text that a step was given. verify: how many verify, at the most, where that is not as
    usual."""
    return read_windows(
        checkpoint,
        asked.text,
        asked.eval_text,
        field=asked.field,
        chat=asked.chat,
        samples=asked.most_samples,
        window=asked.window,
        seed=seed,
        skip_bad=asked.skip_bad,
        verify=verify,
    )


def _check_windows(checkpoint: Checkpoint, parts: Anatomy, cut: tuple[Tensor, ...], *, weighted: bool) -> None:
    """Raises UsageError for windows that are none, and for tokens without an embedding. weighted: they may say what
    each token counts."""
    shapes = [tuple(window.shape) for window in cut]
    rows = all(len(shape) == 1 or (weighted and len(shape) == 2 and shape[0] == 2) for shape in shapes)
    if not rows or any(shape[-1] < 2 for shape in shapes) or any(int(window.min()) < 0 for window in cut):
        if weighted:
            raise UsageError(
                "The windows given must be rows of at least two token numbers, none of them negative, or two such "
                "rows: tokens, and what each counts."
            )
        raise UsageError("The windows given must be rows of at least two token numbers, none of them negative.")
    largest = max((int(tokens_of(window).max()) for window in cut), default=0)
    if largest >= parts.embedding.shape[0]:
        raise UsageError(
            "{folder}: the tokenizer makes token {token}, the embedding has {rows} rows. The tokenizer belongs to "
            "another model.",
            folder=checkpoint.path,
            token=largest,
            rows=parts.embedding.shape[0],
        )


def _helpful(asked: Calibrated, parts: Anatomy) -> int:
    """Tokens beyond which more do not help, unless a number of windows was asked for."""
    if isinstance(asked, Distill) and asked.samples is None:
        return _TAUGHT if asked.text is None else sys.maxsize
    return max(_HELPFUL, _A_COLUMN * parts.widest) if asked.samples is None else sys.maxsize


def _first(windows: Sequence[Tensor], tokens: int) -> list[Tensor]:
    """As many of the windows as hold `tokens`."""
    taken: list[Tensor] = []
    for window in windows:
        if tokens <= 0:
            break
        taken.append(window)
        tokens -= len(window)
    return taken


def about_text(asked: Calibrated, material: Material, parts: Anatomy, *, solved: bool) -> list[Message]:
    """Notes on text that is too little. solved: whether second moments of it are solved with."""
    notes = list(material.notes)
    seen = sum(map(len, material.solve)) + material.synthetic
    if material.solve and solved and seen < parts.widest:
        notes.append(
            Message(
                "calibrated on {tokens} tokens, fewer than the {widest} channels that its widest linear reads: give "
                "more text (--text, --samples, --synthetic)",
                tokens=seen,
                widest=parts.widest,
            )
        )
    if asked.text is not None and not material.verify:
        notes.append(Message("no text was left for verifying, so the run reports no KL of its own; use whet compare"))
    return notes


def with_text(job: Job, on_event: OnEvent, writer: Checkpoint | None = None, *, instead: bool = False) -> Job:
    """`job` with the text that the model is still to write: beside what was given, or all of it and what verifies.

    writer: who writes it, where that is not the model that is worked on. instead: what was given to train on does not
    stay beside it; what was held out does.
    """
    if not job.to_write:
        return job
    about, writer = dict(job.text or {}), writer or job.checkpoint
    if job.solve:
        written = continued(writer, job.solve, job.to_write, job.seed, job.device, on_event)
        solve, verify = [*([] if instead else job.solve), *written], job.verify
        about["written"] = {"windows": len(written), "tokens": sum(map(len, written))}
    else:
        samples = job.to_write // about["window"]
        count = samples + verify_count(samples)
        own = self_written(writer, count, about["window"], job.seed, job.device, on_event)
        solve, verify = own[:samples], own[samples:]
    return dataclasses.replace(job, solve=solve, verify=verify, to_write=0, text=about)


def self_written(
    checkpoint: Checkpoint, count: int, window: int, seed: int, device: str, on_event: OnEvent
) -> list[Tensor]:
    """`count` windows int64 of at most `window` tokens written by the model; says beforehand how long it will take."""
    engine = open_model(checkpoint.path, device)
    chance = random.Random(seed)
    starts = [[chance.randrange(engine.vocabulary)] for _ in range(count)]
    started = time.monotonic()
    starts = [[*start, *new] for start, new in zip(starts, engine.continue_ids(starts, _GREEDY), strict=True)]
    seconds = (time.monotonic() - started) / _GREEDY * window
    message = Message(
        "no text was given: the model writes {count} x {window} tokens itself, in about {seconds:.0f} s. Text of your "
        "own (--text) is better where you have it.",
        count=count,
        window=window,
        seconds=seconds,
    )
    on_event(note_event(message))
    rest = engine.continue_ids(starts, max(1, window - _GREEDY - 1), temperature=1.0, seed=seed, on_event=on_event)
    written = [torch.tensor([*start, *new][:window]) for start, new in zip(starts, rest, strict=True)]
    written = [sample for sample in written if len(sample) >= _SHORTEST]
    if not written:
        raise UsageError(
            "{model} ends every text it begins within {tokens} tokens, so it cannot write its own calibration text. "
            "Give --text FILE.",
            model=checkpoint.path.name,
            tokens=_SHORTEST,
        )
    return written


def continued(
    checkpoint: Checkpoint, text: Sequence[Tensor], tokens: int, seed: int, device: str, on_event: OnEvent
) -> list[Tensor]:
    """Windows int64 as long as the longest of `text` that the model writes, going on from pieces of it, until they hold
    `tokens` (fewer only where it ends what it writes early, time and again).

    What starts with the model's first token does so again. Where windows hold documents one behind the other, so do
    those that are written.
    """
    message = Message("the original writes {tokens} tokens beside the text, going on from pieces of it", tokens=tokens)
    on_event(note_event(message))
    engine = open_model(checkpoint.path, device)
    size = max(map(len, text))
    length = max(1, round(_PIECE * size))
    first = checkpoint.config.get("bos_token_id")
    packed = any(bool(torch.isin(window[:-1], torch.tensor(sorted(engine.ends))).any()) for window in text)
    chance = random.Random(seed)
    found: list[Tensor] = []
    for number in range(_ROUNDS):
        missing = tokens - sum(map(len, found))
        if missing <= 0:
            break
        starts = []
        for _ in range(-(-missing // size)):
            window = text[chance.randrange(len(text))].tolist()
            place = chance.randrange(max(1, len(window) - length + 1))
            piece = window[place : place + length]
            starts.append([first, *piece[:-1]] if place and window[0] == first else piece)
        chosen = seed + number * tokens
        rest = engine.continue_ids(
            starts, size - length, temperature=1.0, seed=chosen, past_ends=packed, on_event=on_event
        )
        written = [torch.tensor([*start, *new][:size]) for start, new in zip(starts, rest, strict=True)]
        found += [sample for sample in written if len(sample) >= min(_SHORTEST, size)]
    return found
