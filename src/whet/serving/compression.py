"""Prompts made shorter by what the lighter model finds least surprising: words that it would have guessed say little.

What stays whatever it costs: the last turn (of a completion the last paragraph), what a system or developer said,
sentences that ask, words with digits, and code. Of the rest the most surprising words stay until the share that was
asked for is reached. Source: Li, Dong, Guerin and Lin, "Compressing Context to Enhance Inference Efficiency of Large
Language Models" (Selective Context), EMNLP 2023, arXiv 2310.06201, by words.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from whet.errors import UsageError
from whet.serving.jobs import AskedWrongly, Fault, Job
from whet.serving.pairs import text_of
from whet.serving.sides import Busy, GaveUp, Pair, Served
from whet.text.scripts import main_script

LEAST = 0.1  # the smallest share that can be asked for
_WORDS = re.compile(r"\s*\S+|\s+$")
_SENTENCES = re.compile(r"[^.!?。？！\n]*(?:[.!?。？！]+|\n+|$)")
_FENCES = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_CODE = re.compile(r"[{}<>=;\\_|]|\w\(|^\s{4,}\S")
_JUDGED = 64  # tokens of answers that are compared
_QUESTIONS = ("?", "？")
_KEPT_ROLES = ("system", "developer", "tool", "function")


@dataclass(frozen=True)
class Word:
    """A word with the blanks before it, its tokens, and its surprise in nats for each of them. must: it stays."""

    text: str
    tokens: float
    surprise: float
    must: bool


def words_of(text: str, tokens: Sequence[tuple[str, float]]) -> list[Word]:
    """The words of a text. tokens: (text, surprise in nats) of each, in order, which together are the text."""
    kept = _must_stay(text)
    ends, total = [], 0
    for piece, surprise in tokens:
        total += len(piece)
        ends.append((total, surprise))
    made, at = [], 0
    for found in _WORDS.finditer(text):
        mine: list[float] = []
        while at < len(ends) and (ends[at][0] <= found.end() or not mine):
            mine.append(ends[at][1])
            at += 1
        must = any(kept[found.start() : found.end()])
        made.append(Word(found[0], len(mine), sum(mine) / max(1, len(mine)), must))
    return made


def _must_stay(text: str) -> list[bool]:
    """Of each letter whether it belongs to something that stays."""
    kept = [False] * len(text)
    spans = [found.span() for found in _FENCES.finditer(text)]
    for found in _SENTENCES.finditer(text):
        if found[0].rstrip().endswith(_QUESTIONS):
            spans.append(found.span())
    for found in re.finditer(r"[^\n]+", text):
        if len(_CODE.findall(found[0])) >= 2:
            spans.append(found.span())
    for found in re.finditer(r"\S*\d\S*", text):
        spans.append(found.span())
    for start, end in spans:
        kept[start:end] = [True] * (end - start)
    return kept


def shortened(words: Sequence[Word], share: float) -> str:
    """The words that stay, so that their tokens are `share` of all, or as few as those that must stay allow."""
    room = share * sum(word.tokens for word in words) - sum(word.tokens for word in words if word.must)
    chosen = {number for number, word in enumerate(words) if word.must}
    rest = [number for number in range(len(words)) if number not in chosen]
    for number in sorted(rest, key=lambda number: -words[number].surprise):
        if words[number].tokens > room:
            break
        room -= words[number].tokens
        chosen.add(number)
    return "".join(words[number].text for number in sorted(chosen)).strip(" ")


def parts_of(prompt: str | list[Any]) -> list[tuple[int | None, str]]:
    """What of a prompt can be made shorter: (turn, text); of a completion (None, all but its last paragraph)."""
    if isinstance(prompt, str):
        head, between, _ = prompt.rstrip("\n").rpartition("\n\n")
        return [(None, head + between)] if head else []
    if not prompt or not isinstance(prompt[0], dict):
        return []
    return [(at, turn["content"]) for at, turn in enumerate(prompt[:-1]) if turn["role"] not in _KEPT_ROLES]


def with_parts(prompt: str | list[Any], made: Sequence[tuple[int | None, str, str]]) -> str | list[Any]:
    """A prompt with parts of it, (turn, text, shorter text), put in."""
    if isinstance(prompt, str):
        for _, text, shorter in made:
            blank = text[len(text.rstrip()) :]
            prompt = shorter.rstrip() + blank + prompt[len(text) :]
        return prompt
    turns = [dict(turn) for turn in prompt]
    for at, _, shorter in made:
        if at is not None:
            turns[at]["content"] = shorter
    return turns


def share_of(said: str | None) -> float | None:
    """`0.5` of a header; None for none and for 1. Raises ValueError."""
    if said is None:
        return None
    share = float(said)
    if not LEAST <= share <= 1:
        raise ValueError
    return None if share == 1 else share


def check_share(share: float, urls: bool) -> None:
    """Raises UsageError for a share of prompts that cannot be kept."""
    if not LEAST <= share <= 1:
        raise UsageError(
            "{share:g} is no share of prompts to keep. Say one from {least:g} to 1, as --compress 0.5.",
            share=share,
            least=LEAST,
        )
    if urls:
        raise UsageError(
            "Servers behind a URL do not say how likely a prompt is, so nothing can be left out of it. Give two models "
            "on this machine, or leave --compress out."
        )


@dataclass
class Compared:
    """Answers to shortened prompts beside those to the whole ones, of one language: how many, how many the same, and
    the sum of the shares of words that are the same."""

    count: int = 0
    same: int = 0
    agreement: float = 0.0


class Compressor:
    """Shortens prompts, and has some of the answers judged against those to the whole prompts, one at a time."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.compared: dict[str, Compared] = {}
        self._judging: asyncio.Task[None] | None = None

    async def shorten(self, prompt: str | list[Any], share: float) -> tuple[str | list[Any], float]:
        """The prompt with `share` of the tokens of those parts that may be shortened, and the share of letters that it
        has left. Raises Unable where the lighter model does not tell how likely text is, and Fault."""
        made: list[tuple[int | None, str, str]] = []
        for at, text in parts_of(prompt):
            told = await self.pair.lighter.engine.surprise(text)
            if told is None:
                raise Unable
            if "".join(piece for piece, _ in told) == text:  # a tokenizer that changes text tells of another one
                made.append((at, text, shortened(words_of(text, told), share)))
        if not made:
            return prompt, 1.0
        before, after = sum(len(text) for _, text, _ in made), sum(len(shorter) for _, _, shorter in made)
        whole = length_of(prompt)
        return with_parts(prompt, made), (whole - before + after) / whole

    def judge(self, whole: str | list[Any], job: Job) -> None:
        """Compare the answers to a whole prompt and to the shortened one, in the background, if no other is."""
        if self._judging is None or self._judging.done():
            self._judging = asyncio.create_task(self._judge(whole, job))

    async def _judge(self, whole: str | list[Any], job: Job) -> None:
        answers = []
        with contextlib.suppress(Fault, AskedWrongly, GaveUp, Busy):
            for prompt in (whole, job.prompt):
                asked = Job(prompt, chat=job.chat, tokens=_JUDGED, temperature=0.0)
                async with contextlib.aclosing(self.pair.answer(Served(asked), lighter=False)) as pieces:
                    async for _ in pieces:
                        pass
                answers.append(asked.text)
            found = self.compared.setdefault(main_script(text_of(whole)).lower() or "none", Compared())
            first, second = (answer.split() for answer in answers)
            found.count += 1
            found.same += first == second
            found.agreement += difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()

    async def stop(self) -> None:
        if self._judging is not None:
            self._judging.cancel()
            await asyncio.gather(self._judging, return_exceptions=True)

    def told(self) -> dict[str, Any]:
        """By language: how many answers were compared, and what share of them, and of their words, is the same."""
        return {
            name: {"count": one.count, "same": one.same / one.count, "words": one.agreement / one.count}
            for name, one in self.compared.items()
        }


class Unable(Exception):
    """The lighter model tells no likelihoods."""


def length_of(prompt: str | list[Any]) -> int:
    """Letters of a prompt."""
    return len(prompt) if isinstance(prompt, str) else sum(len(turn["content"]) for turn in prompt)
