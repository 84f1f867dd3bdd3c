"""Text for two models of which one has fewer tokens: each reads it by its own tokenizer, and what both read alike is
compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from whet.errors import UsageError
from whet.messages import Message
from whet.text import Window
from whet.text.windows import SHORTEST

OTHER = -1  # stands for a token that the original reads otherwise
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class CommonTokens:
    """Two tokenizers as one: the lighter's ids, and OTHER where the original reads other tokens.

    rows: by id of the lighter, the original's. `same` and `whole` count the tokens that were read. Whatever else it is
    asked for, the lighter's tokenizer answers.
    """

    def __init__(self, original: Any, lighter: Any, rows: Sequence[int]) -> None:
        self.original, self.lighter, self.rows = original, lighter, list(rows)
        words = original.get_vocab()
        self.sizes = {number: _size(token) for token, number in words.items()}
        self.same = self.whole = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lighter, name)

    def __call__(
        self, texts: str | Sequence[str], add_special_tokens: bool = True, verbose: bool = False
    ) -> dict[str, Any]:
        """Token ids, as `input_ids`, of one text or several."""
        if isinstance(texts, str):
            return {"input_ids": self([texts], add_special_tokens, verbose)["input_ids"][0]}
        theirs, mine = (
            tokenizer(list(texts), add_special_tokens=add_special_tokens, verbose=verbose)["input_ids"]
            for tokenizer in (self.original, self.lighter)
        )
        return {"input_ids": [self._common(*pair) for pair in zip(theirs, mine, strict=True)]}

    def _common(self, theirs: Sequence[int], mine: Sequence[int]) -> list[int]:
        """`mine`, with OTHER for every token that `theirs` does not have at the same place of the text."""
        as_theirs = [self.rows[number] if number < len(self.rows) else OTHER for number in mine]
        places = self._places(theirs)
        found = [
            number if places.get(place) == old else OTHER
            for number, (place, old) in zip(mine, self._places(as_theirs).items(), strict=True)
        ]
        self.same += len(found) - found.count(OTHER)
        self.whole += len(found)
        return found

    def _places(self, ids: Sequence[int]) -> dict[int, int]:
        """Id by where its token begins."""
        found, place = {}, 0
        for number in ids:
            found[place] = number
            place += self.sizes.get(number, 1)
        return found

    def note(self) -> Message:
        """How much of the text both read alike."""
        return Message(
            "The two models have different tokenizers: {share:.2%} of the tokens of the text are the same in both, and "
            "are compared.",
            share=self.same / max(1, self.whole),
        )


def _size(token: str) -> int:
    """What a token takes of a text; texts of the same tokens in other pieces take the same."""
    return 1 if _BYTE.fullmatch(token) else max(1, len(token.removeprefix("##").encode(errors="replace")))


def alike_windows(windows: Sequence[Window], tokenizer: Any, notes: list[Message]) -> list[Window]:
    """What both models read alike: of a shared tokenizer all windows, of `CommonTokens` what lies between two OTHER as
    a window of its own, where it is long enough; a note says how much that is. Raises UsageError where nothing is."""
    if not isinstance(tokenizer, CommonTokens):
        return list(windows)
    found = [run for window in windows for run in _runs(window)]
    if not found:
        raise UsageError(
            "The two models read none of the text alike: the tokens it needs were cut. Give text of the kind that the "
            "lighter model was made for."
        )
    notes.append(tokenizer.note())
    return found


def ready_windows(text: Sequence[Any], tokenizer: Any) -> list[Tensor]:
    """Those of `text` that are windows of the original's ids already, in the ids of the lighter."""
    windows = [window for window in text if isinstance(window, Tensor)]
    if not isinstance(tokenizer, CommonTokens):
        return windows
    new = {old: number for number, old in enumerate(tokenizer.rows)}
    given = [torch.tensor([new.get(old, OTHER) for old in window.tolist()]) for window in windows]
    return [run.tokens for place, window in enumerate(given) for run in _runs(Window(window, place, 0))]


def _runs(window: Window) -> list[Window]:
    found = []
    breaks = [-1, *(window.tokens == OTHER).nonzero()[:, 0].tolist(), len(window.tokens)]
    for before, after in pairwise(breaks):
        if after - before > SHORTEST:
            found.append(Window(window.tokens[before + 1 : after].clone(), window.document, window.start + before + 1))
    return found
