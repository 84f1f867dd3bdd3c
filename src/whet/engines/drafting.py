"""Speculative decoding: a lighter model guesses the next tokens, the original reads them all in one pass and keeps
those that it would have written.

Notable: what is written is the original's, whatever the draft guesses: a bad draft costs time and nothing else. So a
draft may have fewer tokens than the original, and be told of those alone that it knows. How many tokens are guessed
follows from what was measured: how often guesses are kept, and what guessing and reading cost.
Sources: Leviathan, Kalman and Matias 2023 (arXiv 2211.17192, eq. 1 and theorem 3.8); Chen et al. 2023 (2302.01318).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whet.engines.stepping import Stepper
from whet.errors import UsageError

MOST = 8  # tokens guessed at a time
_FORGET = 0.98  # of what was measured before, with every new measurement
_LOOK = 32  # rounds, after which another number of guesses is tried
_BELIEF = (0.7, 4.0)  # share of guesses that are kept, and how many guesses that opinion counts for
_READ = 256  # tokens of a prompt that are read at a time


def keep_share(p: Tensor, q: Tensor, token: int) -> float:
    """The probability with which a token drawn from `q` is kept, where `p` is to be drawn from; both [vocabulary]."""
    return min(1.0, float(p[token] / q[token]))


def instead(p: Tensor, q: Tensor) -> Tensor:
    """What is drawn from where a token from `q` is not kept, so that together it is `p`: what `p` has more."""
    more = (p - q).clamp(min=0)
    return more / more.sum() if float(more.sum()) > 0 else p


def judged(p: Tensor, q: Sequence[Tensor], guesses: Sequence[int], sampler: torch.Generator) -> list[int]:
    """The guesses that are kept and one token more: distributed as if all were drawn from `p`.

    p: the original's shares after the last token and after each guess, [guesses + 1, vocabulary]; q: the draft's that
    each guess was drawn from.
    """
    kept: list[int] = []
    for theirs, mine, token in zip(p, q, guesses, strict=False):
        if float(torch.rand(1, generator=sampler, dtype=torch.float64)) >= keep_share(theirs, mine, token):
            return [*kept, int(torch.multinomial(instead(theirs, mine), 1, generator=sampler))]
        kept.append(token)
    return [*kept, int(torch.multinomial(p[len(guesses)], 1, generator=sampler))]


@dataclass
class _Line:
    """Seconds of a forward pass as base + slope x tokens, fitted to what was measured of late."""

    sums: list[float] = field(default_factory=lambda: [0.0] * 5)

    def add(self, tokens: int, seconds: float) -> None:
        new = (1.0, tokens, tokens * tokens, seconds, tokens * seconds)
        self.sums = [_FORGET * old + one for old, one in zip(self.sums, new, strict=True)]

    def at(self, tokens: int) -> float | None:
        """None where nothing was measured. Where only one size was, another is taken to cost as much."""
        count, x, xx, y, xy = self.sums
        if not count:
            return None
        spread = count * xx - x * x
        slope = max(0.0, (count * xy - x * y) / spread) if spread > 1e-6 * count * xx else 0.0
        return max(1e-9, (y - slope * x) / count + slope * tokens)


@dataclass
class Pace:
    """How many tokens are worth guessing: those that make the most tokens a second.

    drafts, reads: seconds of a pass of the draft and of the original by tokens in it. proposed, kept: guesses in all.
    """

    most: int = MOST
    drafts: _Line = field(default_factory=_Line)
    reads: _Line = field(default_factory=_Line)
    proposed: int = 0
    kept: int = 0
    rounds: int = 0
    _tried: float = _BELIEF[1]
    _held: float = _BELIEF[0] * _BELIEF[1]

    @property
    def acceptance(self) -> float:
        """Share of guesses that are kept, of late, among those whose forerunners were kept."""
        return self._held / self._tried

    def add(self, proposed: int, kept: int) -> None:
        """One sequence's guesses, and how many were kept before the first that was not."""
        self.proposed += proposed
        self.kept += kept
        seen = min(kept + 1, proposed)
        self._tried = _FORGET**seen * self._tried + seen
        self._held = _FORGET**seen * self._held + kept

    def tokens(self, length: int) -> float:
        """How many tokens a pass of the original yields where `length` are guessed: (1 - a^(g+1)) / (1 - a)."""
        a = self.acceptance
        return length + 1.0 if a > 1 - 1e-9 else (1 - a ** (length + 1)) / (1 - a)

    def rate(self, length: int, rows: int) -> float:
        """Tokens a second of each of `rows` sequences, as far as costs are known."""
        reads, drafts = self.reads.at(rows * (length + 1)), self.drafts.at(rows)
        return self.tokens(length) / ((reads or 1.0) + length * (drafts or 0.0))

    def choose(self, rows: int) -> int:
        """How many tokens to guess now, 0 for none. Now and then another number, as costs and texts change."""
        self.rounds += 1
        if self.reads.at(1) is None:
            return 0
        if self.drafts.at(1) is None:
            return min(4, self.most)
        best = max(range(self.most + 1), key=lambda length: self.rate(length, rows))
        if self.rounds % _LOOK == 0:
            return best - 1 if best > 1 else best + 1
        return best


class Drafter:
    """A draft model beside the original's stepper: the same slots, guesses in the original's tokens.

    names, theirs: token → number of the draft and of the original, which has `vocabulary` rows. ends: tokens of the
    original after which nothing is guessed. Raises UsageError where the two do not have their tokens in common.
    """

    def __init__(
        self,
        stepper: Stepper,
        names: dict[str, int],
        theirs: dict[str, int],
        vocabulary: int,
        ends: Collection[int],
        folder: str = "",
    ) -> None:
        shared = {number: theirs[name] for name, number in names.items() if name in theirs}
        if 2 * len(shared) < len(names):
            raise UsageError(
                "{draft} cannot draft here: only {count} of its {all} tokens are also tokens of the original. Give a "
                "lighter model that was made from it, or one with the same tokenizer.",
                draft=folder,
                count=len(shared),
                all=len(names),
            )
        self.stepper, self.vocabulary, self.ends = stepper, vocabulary, set(ends)
        self._mine = {theirs: mine for mine, theirs in shared.items()}
        self._columns = torch.tensor(sorted(shared))
        self._places = torch.tensor([shared[number] for number in sorted(shared)])
        # rows that fill a vocabulary up have no names, and are as alike as the others
        self._same = len(shared) == len(names) == len(theirs) and torch.equal(self._columns, self._places)
        self._unread: dict[int, list[int]] = {}  # by slot, tokens of the original that it was not given yet
        self._guessed: dict[int, tuple[int, list[int]]] = {}  # by slot, where its own guesses begin, and which
        self.pace = Pace()

    def read(self, slot: int, ids: Sequence[int]) -> None:
        """Tokens of a prompt. What does not fit its context is left out, and nothing is guessed there."""
        known = [self._mine[token] for token in ids if token in self._mine]
        for first in range(0, len(known), _READ):
            part = known[first : first + _READ]
            if self.stepper.lengths[slot] + len(part) < self.stepper.context:
                self.stepper.read(slot, part)

    def add(self, slot: int, ids: Sequence[int]) -> None:
        """Tokens that the original wrote."""
        self._unread.setdefault(slot, []).extend(ids)

    def guess(self, slots: Sequence[int], length: int, pick: Callable[[int, int, Tensor], int]) -> dict[int, list[int]]:
        """Up to `length` tokens for each slot that is open. pick: chooses one of slot, number of the guess and its
        logits [vocabulary of the original]. A slot whose last token it does not know gets none."""
        fed = [(slot, ids) for slot in slots if (ids := self._given(slot)) and self._fits(slot, len(ids) + length)]
        made: dict[int, list[int]] = {slot: [] for slot, _ in fed}
        for number in range(length):
            if not fed:
                break
            again = []
            for (slot, _), logits in zip(fed, self.stepper.last(fed), strict=True):
                token = pick(slot, number, self._as_theirs(logits))
                made[slot].append(token)
                if token in self._mine and token not in self.ends and number + 1 < length:
                    again.append((slot, [self._mine[token]]))
            for slot, (token,) in again:
                self._guessed[slot][1].append(token)
            fed = again
        return made

    def end(self, slot: int) -> None:
        self._unread.pop(slot, None)
        self._guessed.pop(slot, None)
        self.stepper.end(slot)

    def _given(self, slot: int) -> list[int]:
        """Its own tokens that come after those that it has read; guesses that were not kept are forgotten."""
        ids = [self._mine[token] for token in self._unread.pop(slot, []) if token in self._mine]
        start, guesses = self._guessed.pop(slot, (self.stepper.lengths[slot], []))
        same = 0
        while same < min(len(guesses), len(ids)) and guesses[same] == ids[same]:
            same += 1
        self.stepper.crop(slot, start + same)
        self._guessed[slot] = self.stepper.lengths[slot] + len(ids[same:]), []
        return ids[same:]

    def _fits(self, slot: int, more: int) -> bool:
        return self.stepper.lengths[slot] + more <= self.stepper.context

    def _as_theirs(self, logits: Tensor) -> Tensor:
        """Logits by the original's numbers; what the draft does not know is impossible."""
        logits = logits.float()
        if self._same and len(logits) == self.vocabulary:
            return logits
        known = logits.index_select(-1, self._columns.to(logits.device))
        full = torch.full((self.vocabulary,), -torch.inf)
        full[self._places] = known.cpu()
        return full


def drafter(engine: Any, draft: Any, draft_stepper: Stepper) -> Drafter:
    """A drafter for `engine` of the model `draft`, both opened."""
    names, theirs = draft.tokenizer.get_vocab(), engine.tokenizer.get_vocab()
    names = {name: number for name, number in names.items() if number < draft.vocabulary}
    theirs = {name: number for name, number in theirs.items() if number < engine.vocabulary}
    return Drafter(draft_stepper, names, theirs, engine.vocabulary, engine.ends, draft.folder)
