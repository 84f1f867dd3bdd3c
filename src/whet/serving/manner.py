"""What prompts and answers are like: whether prompts still are like the text that the lighter model was made with, and
whether answers refuse, or change the language."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from whet.messages import Message, with_and
from whet.text.scripts import main_script, scripts_in

_OPENING = 200  # letters of an answer in which a refusal says so
_REFUSES = re.compile(
    r"\b(?:i(?: a|')m (?:sorry|unable|not able)|i apologi[sz]e|i can(?:'|no)?t (?:help|assist|provide|do|answer|comply)"
    r"|i cannot|as an ai\b)|죄송합니다|죄송하지만|도와드릴 수 없|도와 드릴 수 없|답변(?:해 ?)?드릴 수 없|제공할 수 없",
    re.IGNORECASE,
)
_LETTERS = 20  # that a text needs before its language is judged
_JUDGED = 2000  # letters by which it is
_LONGEST = 20_000  # letters of a prompt that are looked at
_CODE = frozenset("{}[]<>=;_\\|#/*&^~`$@")
REMEMBERED = 500  # prompts
FEWEST = 100  # prompts before a drift is named
DRIFTED = 0.15  # total variation from which it is named


def refuses(text: str) -> bool:
    """Whether an answer opens with a refusal, in English or Korean."""
    return bool(_REFUSES.search(text[:_OPENING].replace("’", "'")))


def changes_language(prompt: str, answer: str) -> bool:
    """Whether an answer is mostly in another script than its prompt, where both are long enough to tell."""
    both = [text[:_JUDGED] for text in (prompt, answer)]
    if any(sum(map(str.isalpha, text)) < _LETTERS for text in both):
        return False
    return main_script(both[1]) not in scripts_in(both[0])


def kinds_of(text: str) -> dict[str, float]:
    """What share of a text is of which kind: its letters by script, digits, and signs of code; of its characters that
    are no blanks."""
    counts: dict[str, float] = {}
    letters = {letter: n for letter, n in Counter(text[:_LONGEST]).items() if not letter.isspace()}
    for letter, n in letters.items():
        kind = "digits" if letter.isdigit() else "code" if letter in _CODE else "signs"
        kind = main_script(letter).lower() or kind if letter.isalpha() else kind
        counts[kind] = counts.get(kind, 0.0) + n
    return {kind: count / sum(letters.values()) for kind, count in counts.items()}


def mean_of(profiles: Iterable[dict[str, float]]) -> dict[str, float]:
    """The mean share of each kind."""
    sums: dict[str, float] = {}
    count = 0
    for profile in profiles:
        count += 1
        for kind, share in profile.items():
            sums[kind] = sums.get(kind, 0.0) + share
    return {kind: total / count for kind, total in sums.items()}


@dataclass
class Drift:
    """How far the last prompts are from the text that the lighter model was made with, by `kinds_of`.

    text: its mean profile.
    """

    text: dict[str, float]
    last: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def add(self, prompt: str) -> None:
        if found := kinds_of(prompt):
            self.last.append(found)

    def told(self) -> dict[str, Any]:
        """distance: total variation, 0 to 1; prompts: how many it is of; kinds: where they differ most, as
        (kind, share of the prompts, share of the text), largest first; named: whether it is large enough to say so."""
        now = mean_of(self.last)
        kinds = {*now, *self.text}
        gaps = {kind: now.get(kind, 0.0) - self.text.get(kind, 0.0) for kind in kinds} if now else {}
        distance = sum(map(abs, gaps.values())) / 2
        most = sorted(gaps, key=lambda kind: -abs(gaps[kind]))[:3]
        rows = [(kind, now.get(kind, 0.0), self.text.get(kind, 0.0)) for kind in most if abs(gaps[kind]) >= 0.05]
        named = len(self.last) >= FEWEST and distance >= DRIFTED
        return {"distance": distance, "prompts": len(self.last), "kinds": rows, "named": named}

    def message(self) -> Message | None:
        """What differs, where it is large enough to say so."""
        told = self.told()
        if not told["named"]:
            return None
        parts = [
            Message("{kind} {now:.0%} and not {text:.0%}", kind=kind, now=now, text=text)
            for kind, now, text in told["kinds"]
        ]
        return Message("prompts are unlike the text the lighter model was made with: {parts}", parts=with_and(parts))
