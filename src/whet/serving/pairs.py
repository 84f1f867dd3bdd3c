"""Answers of both models to the same prompt that differ: kept only where somebody asked for it, few, redacted by rule,
in memory alone, and for an hour."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from whet.curation.private import redacted

SECONDS = 3600.0  # that a pair is kept
LETTERS = 2000  # of each text
MOST = 200


@dataclass(frozen=True)
class Kept:
    """at: seconds since 1970; agreement: share of the places of the original's answer where both choose the same."""

    at: float
    prompt: str
    original: str
    lighter: str
    agreement: float


@dataclass
class Pairs:
    """most: how many are kept, 0 for none. wall: seconds since 1970."""

    most: int
    wall: Callable[[], float]
    kept: deque[Kept] = field(default_factory=deque)

    def add(self, prompt: str | list[Any], original: str, lighter: str, agreement: float) -> None:
        """Keep it, if pairs are kept and the answers differ."""
        self._forget()
        if not self.most or original == lighter:
            return
        made = Kept(self.wall(), _short(text_of(prompt)), _short(original), _short(lighter), agreement)
        self.kept.append(made)
        while len(self.kept) > self.most:
            self.kept.popleft()

    def told(self) -> list[Kept]:
        """Newest first."""
        self._forget()
        return list(reversed(self.kept))

    def _forget(self) -> None:
        while self.kept and self.wall() - self.kept[0].at > SECONDS:
            self.kept.popleft()


def text_of(prompt: str | list[Any]) -> str:
    """A prompt for people: a conversation as its turns, token ids as their number."""
    if isinstance(prompt, str):
        return prompt
    if prompt and isinstance(prompt[0], dict):
        return "\n\n".join(f"{turn.get('role')}: {turn.get('content')}" for turn in prompt)
    return f"[{len(prompt)} token ids]"


def _short(text: str) -> str:
    """Redacted before it is cut, so that no half of a number escapes."""
    whole = redacted(text)[0]
    return whole if len(whole) <= LETTERS else whole[:LETTERS] + " …"
