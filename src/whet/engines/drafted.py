"""An answer written with a draft, and how much faster that is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet.engines.drafting import Drafter, drafter, judged
from whet.engines.sampling import check_request, shares
from whet.engines.stepping import AloneStepper, Stepper, stepper
from whet.errors import NotFiniteError, UsageError

FASTER = 1.1  # times as fast, which a draft must at least make it
_TOKENS = 32  # of each text that is written to measure
_SECONDS = 30.0  # that measuring takes at most, of each of both
_OPENINGS = ("Once upon a time", "The capital of France is", "옛날 옛적에", "To make bread, you need")


@dataclass(frozen=True)
class Drafted:
    """What a draft did. proposed, kept: tokens that it guessed, and those that the original wrote too. ids: what was
    written. seconds: of writing, without the prompt."""

    ids: list[int]
    proposed: int
    kept: int
    seconds: float


@dataclass(frozen=True)
class Speedup:
    """Tokens a second of the original alone and with a draft; kept: share of guesses that it wrote too; length: tokens
    guessed at a time."""

    alone: float
    drafted: float
    kept: float
    length: int

    @property
    def times(self) -> float:
        return self.drafted / self.alone


def steppers(engine: Any, draft: Any, slots: int, most: int) -> tuple[Stepper, Drafter]:
    """The stepper of `engine` and a drafter beside it. Raises UsageError where one of both cannot take tokens back, or
    they do not have their tokens in common."""
    made = [stepper(one, slots, most) for one in (engine, draft)]
    for one, steps in zip((engine, draft), made, strict=True):
        if isinstance(steps, AloneStepper):
            raise UsageError(
                "{folder} cannot take tokens back once it has read them: its layers keep a state or a window of their "
                "own. So it can neither draft nor verify. Leave --draft out.",
                folder=one.folder,
            )
    return made[0], drafter(engine, draft, made[1])


def write(
    engine: Any,
    steps: Stepper,
    drafts: Drafter | None,
    prompt: Sequence[int],
    tokens: int,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    past_ends: bool = False,
    seconds: float = float("inf"),
) -> Drafted:
    """The answer to one prompt, in slot 0; drawn as `judged` says, greedy at temperature 0. past_ends: write on where
    the text ends. seconds: stop after so many.

    Raises UsageError for numbers out of range, or a prompt that is empty or too long.
    """
    check_request([prompt], tokens, temperature, top_p, steps.context, engine.folder)
    sampler = torch.Generator().manual_seed(seed)
    made: list[int] = []
    before = (drafts.pace.proposed, drafts.pace.kept) if drafts else (0, 0)
    try:
        logits = steps.read(0, prompt)[None]
        if drafts:
            drafts.read(0, prompt)
        began, guesses, q = time.perf_counter(), [], []  # type: tuple[float, list[int], list[Tensor]]
        while True:
            _must_be_finite(engine, logits)
            new = _chosen(logits, q, guesses, temperature, top_p, sampler)
            steps.crop(0, len(prompt) + len(made) + len(new) - 1)
            if drafts and guesses:
                drafts.pace.add(len(guesses), len(new) - 1)
            for token in new:
                if token in engine.ends and not past_ends:
                    return _told(made, drafts, before, began)
                made.append(token)
                if len(made) == tokens:
                    return _told(made, drafts, before, began)
            if time.perf_counter() - began > seconds:
                return _told(made, drafts, before, began)
            if drafts:
                drafts.add(0, new)
                guesses, q = _guesses(drafts, tokens - len(made) - 1, temperature, top_p, sampler)
            started = time.perf_counter()
            (logits,) = steps.step([(0, [made[-1], *guesses])])
            if drafts:
                drafts.pace.reads.add(1 + len(guesses), time.perf_counter() - started)
    finally:
        steps.end(0)
        if drafts:
            drafts.end(0)


def _told(made: list[int], drafts: Drafter | None, before: tuple[int, int], began: float) -> Drafted:
    seconds = time.perf_counter() - began
    if drafts is None:
        return Drafted(made, 0, 0, seconds)
    return Drafted(made, drafts.pace.proposed - before[0], drafts.pace.kept - before[1], seconds)


def _guesses(
    drafts: Drafter, room: int, temperature: float, top_p: float, sampler: torch.Generator
) -> tuple[list[int], list[Tensor]]:
    """Guesses for slot 0, and the shares that each was drawn from (none at temperature 0)."""
    drawn_from: list[Tensor] = []

    def pick(slot: int, number: int, logits: Tensor) -> int:
        if temperature == 0:
            return int(logits.argmax())
        drawn_from.append(shares(logits, temperature, top_p))
        return int(torch.multinomial(drawn_from[-1], 1, generator=sampler))

    length = min(drafts.pace.choose(1), room)
    if length < 1:
        return [], []
    started = time.perf_counter()
    made = drafts.guess([0], length, pick).get(0, [])
    if made:
        drafts.pace.drafts.add(1, (time.perf_counter() - started) / len(made))
    return made, drawn_from


def _chosen(
    logits: Tensor, q: list[Tensor], guesses: list[int], temperature: float, top_p: float, sampler: torch.Generator
) -> list[int]:
    """The guesses that are kept, and the token after them."""
    if temperature > 0:
        return judged(shares(logits, temperature, top_p), q, guesses, sampler)
    own = logits.argmax(-1).tolist()
    kept = 0
    while kept < len(guesses) and own[kept] == guesses[kept]:
        kept += 1
    return own[: kept + 1]


def _must_be_finite(engine: Any, logits: Tensor) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise NotFiniteError(
            "{folder}: the model gives logits that are not finite while generating. Its weights are broken, or its "
            "type overflows: try float32, or make it again.",
            folder=engine.folder,
        )


def measure(engine: Any, steps: Stepper, drafts: Drafter, tokens: int = _TOKENS) -> Speedup:
    """How much faster the original writes with the draft: greedy answers to a few openings, alone and drafted by turns,
    after one that warms both up."""
    prompts = [engine.encode(opening) for opening in _OPENINGS]
    tokens = min(tokens, steps.context - max(map(len, prompts)) - 1)
    share = _SECONDS / len(prompts)
    write(engine, steps, drafts, prompts[0], tokens, past_ends=True, seconds=share)
    sums = {"alone": [0, 0.0], "drafted": [0, 0.0]}
    proposed = kept = 0
    for prompt in prompts:
        for name, who in (("alone", None), ("drafted", drafts)):
            done = write(engine, steps, who, prompt, tokens, past_ends=True, seconds=share)
            sums[name][0] += len(done.ids) - 1  # the first one comes from reading the prompt
            sums[name][1] += done.seconds
            proposed, kept = proposed + done.proposed, kept + done.kept
    alone, with_draft = (count / max(seconds, 1e-9) for count, seconds in sums.values())
    return Speedup(alone, with_draft, kept / proposed if proposed else 0.0, _usual(drafts))


def _usual(drafts: Drafter) -> int:
    pace = drafts.pace
    return max(range(pace.most + 1), key=lambda length: pace.rate(length, 1))
