"""What a `tokenizer.json` says of its tokens: their ids and texts, what each is merged from, what may never go.

A tokenizer is handled as the dict that the file holds. BPE (over bytes or characters, with `ignore_merges` too),
WordPiece and Unigram are known; each is shown to be exact on text of kept tokens in docs/vocabulary.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from tokenizers import pre_tokenizers

from whet.errors import UsageError

KINDS = ("BPE", "WordPiece", "Unigram")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"


@dataclass(frozen=True)
class Pieces:
    """The tokens of a tokenizer.json; `source` names it in errors."""

    said: Mapping[str, Any]
    source: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(
                "{source}: its tokenizer is a {kind}, whose tokens cannot be cut. whet cuts {known}.",
                source=self.source,
                kind=self.kind or "?",
                known=", ".join(KINDS),
            )

    @property
    def model(self) -> Mapping[str, Any]:
        """The entry `model`."""
        return self.said["model"]  # type: ignore[no-any-return]

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return str(self.said.get("model", {}).get("type"))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id by piece of the model itself, added tokens that are no pieces not among them."""
        vocab = self.model["vocab"]
        return dict(vocab) if isinstance(vocab, dict) else {piece: number for number, (piece, _) in enumerate(vocab)}

    @cached_property
    def added(self) -> dict[str, int]:
        """Id by added token."""
        return {entry["content"]: entry["id"] for entry in self.said.get("added_tokens") or ()}

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Id by token, of all there are."""
        return self.ids | self.added

    @cached_property
    def of_bytes(self) -> bool:
        """Whether pieces are bytes, written as letters."""
        steps = json.dumps([self.said.get("pre_tokenizer"), self.said.get("normalizer")])
        return self.kind == "BPE" and '"ByteLevel"' in steps

    @property
    def falls_back(self) -> bool:
        """Whether what has no piece is read as bytes, so that every text has tokens."""
        return self.of_bytes or bool(self.model.get("byte_fallback"))

    @cached_property
    def _marks(self) -> tuple[str, str]:
        """What pieces inside a word begin with, and what those that end one end with."""
        return self.model.get("continuing_subword_prefix") or "", self.model.get("end_of_word_suffix") or ""

    def merges(self) -> Iterator[tuple[str, str, str]]:
        """Left part, right part and result of every merge, in the order of their ranks."""
        prefix = self._marks[0]
        for pair in self.model.get("merges") or ():
            left, right = pair.split(" ") if isinstance(pair, str) else pair
            yield left, right, left + right.removeprefix(prefix)

    @cached_property
    def parts(self) -> dict[int, frozenset[int]]:
        """By id what a token is made from: both parts of every merge that gives it; of a WordPiece its letters."""
        found: dict[int, set[int]] = {}
        if self.kind == "BPE":
            for left, right, whole in self.merges():
                found.setdefault(self.ids[whole], set()).update((self.ids[left], self.ids[right]))
        elif self.kind == "WordPiece":
            prefix = self._marks[0]
            for piece, number in self.ids.items():
                inside = bool(prefix) and piece.startswith(prefix)
                letters = piece.removeprefix(prefix)
                chain = (prefix + letter if inside or place else letter for place, letter in enumerate(letters))
                found[number] = {self.ids[one] for one in chain if one in self.ids}
        return {number: frozenset(made) for number, made in found.items()}

    def text(self, piece: str) -> str | None:
        """What a piece says, as people read it; what of it is no whole letter is left out. None: a byte."""
        if self.of_bytes:
            letters = _letters()
            return bytes(letters[letter] for letter in piece if letter in letters).decode(errors="ignore")
        if self.model.get("byte_fallback") and _BYTE.fullmatch(piece):
            return None
        prefix, suffix = self._marks
        return piece.removeprefix(prefix).removesuffix(suffix).replace(_SPACE, " ")

    def is_letter(self, piece: str) -> bool:
        """Whether a piece is a single letter, at the beginning of a word or inside one."""
        prefix, suffix = self._marks
        return len(piece.removeprefix(prefix).removesuffix(suffix).removeprefix(_SPACE)) <= 1

    def always(self, alphabet: Callable[[str], bool]) -> set[int]:
        """Ids that stay whatever a text needs: added tokens, those that the tokenizer itself names, bytes.

        alphabet: whether a piece of one letter stays, where there are no bytes to fall back on.
        """
        found = {*self.added.values(), *named_by(self.said)}
        unknown = self.model.get("unk_token")
        found |= {self.tokens[unknown]} if unknown in self.tokens else set()
        if isinstance(self.model.get("unk_id"), int):
            found.add(self.model["unk_id"])
        if self.of_bytes:
            found |= {self.ids[letter] for letter in pre_tokenizers.ByteLevel.alphabet() if letter in self.ids}
            return found
        for piece, number in self.ids.items():
            if self.falls_back:
                stays = bool(_BYTE.fullmatch(piece)) or piece == _SPACE
            else:
                stays = self.is_letter(piece) and (piece == _SPACE or alphabet(piece))
            if stays:
                found.add(number)
        if self.kind == "Unigram":
            # a letter without a piece costs the least score there is and 10 more: that of all must not change
            scores = [score for _, score in self.model["vocab"]]
            found.add(scores.index(min(scores)))
        return found


def named_by(said: Mapping[str, Any]) -> set[int]:
    """Ids that the post-processor and the padding of a tokenizer.json name."""
    found: set[int] = set()

    def seen(number: int) -> int:
        found.add(number)
        return number

    processed(said.get("post_processor"), seen)
    padding = said.get("padding")
    if isinstance(padding, dict) and isinstance(padding.get("pad_id"), int):
        found.add(padding["pad_id"])
    return found


def processed(step: Any, change: Callable[[int], int]) -> Any:
    """A post-processor with every token's id changed."""
    if not isinstance(step, dict):
        return step
    kind = step.get("type")
    if kind == "Sequence":
        return {**step, "processors": [processed(one, change) for one in step["processors"]]}
    if kind == "TemplateProcessing":
        special = {
            name: {**about, "ids": [change(number) for number in about["ids"]]}
            for name, about in step["special_tokens"].items()
        }
        return {**step, "special_tokens": special}
    if kind in ("BertProcessing", "RobertaProcessing"):
        return {**step, **{end: [step[end][0], change(step[end][1])] for end in ("sep", "cls")}}
    return step


@cache
def _letters() -> dict[str, int]:
    """Byte by the letter that byte-level tokenizers write it as: printable ones as themselves, others from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
