"""Windows of tokens that never cross documents, and equal-length batches of them without padding.

Special tokens: only what the tokenizer puts by itself before a text (a bos, where the model uses one), and only where
a document begins; a window from the middle of a document starts with the middle of the document. No eos is added.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from whet.errors import UsageError

SHORTEST = 8  # tokens; less tells nothing about a model
TOKENIZED_AT_ONCE = 64  # documents
LETTERS_AT_ONCE = 1 << 20  # of documents that are tokenized at once
LONGEST = 2 << 20  # letters: a longer document is tokenized in pieces, as far as windows need it
PIECE = 1 << 16  # letters of such a piece, about: it ends at the end of a line or word
POOL = 4  # sampled windows are drawn from a pool of this many times the windows asked for


@dataclass(frozen=True)
class Window:
    """`tokens` int64 [length] from document number `document`, of which they are tokens `start`, `start + 1`, ..."""

    tokens: Tensor
    document: int
    start: int


def windows(
    documents: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    count: int | None,
    length: int,
    seed: int = 0,
    source: str = "the text",
) -> list[Tensor]:
    """`count` windows, each int64 [at most `length`]: `located_windows` without the location."""
    return [window.tokens for window in located_windows(documents, tokenizer, count, length, seed, source)]


def located_windows(
    documents: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    count: int | None,
    length: int,
    seed: int = 0,
    source: str = "the text",
    longest: int = LONGEST,
) -> list[Window]:
    """Windows that do not overlap and do not cross documents, sampled with `seed`, or all of them when `count` is None.

    A document of n < `length` tokens gives one shorter window (none if n < 8). A longer one gives, when sampling,
    n // `length` full windows that start at a random phase; when all are asked for, full windows from its start and the
    rest as a shorter one (none if under 8 tokens), in the order of the text. When sampling, fewer than `count` come
    back if the text holds fewer. Documents are taken in a seeded order and only as many are tokenized as are needed for
    a pool of 4 x `count` windows, from which the sample is drawn. A document of more than `longest` letters is taken in
    pieces, as if each were a document; `document` and `start` of their windows are those of the whole, the start by
    letters before the piece.

    `source` names the text in errors. Raises UsageError when `length` < 8, when there is no text, when the whole text
    has fewer tokens than one window, or when every document is under 8 tokens.
    """
    if length < SHORTEST:
        raise UsageError(
            "A window of {length} tokens is too short to tell anything: use {least} or more.",
            length=length,
            least=SHORTEST,
        )
    if count is not None and count < 1:
        raise UsageError("{count} windows were asked for: use 1 or more.", count=count)
    rng = random.Random(seed)
    order = [part for i, one in enumerate(documents) if one.strip() for part in _parts(i, one, length, longest)]
    if not order:
        raise UsageError(
            "{source} is empty: there is nothing to cut windows from. Give a text with words in it.", source=source
        )
    if count is not None:
        rng.shuffle(order)

    found: list[Window] = []
    tokens_seen = 0
    for first in range(0, len(order), TOKENIZED_AT_ONCE):
        if count is not None and len(found) >= POOL * count and tokens_seen >= length:
            break
        some = order[first : first + TOKENIZED_AT_ONCE]
        texts = [documents[part.document][part.start : part.end] for part in some]
        for part, tokens in zip(some, _tokens(texts, tokenizer), strict=True):
            tokens_seen += len(tokens)
            if count is None or len(tokens) < length:
                starts = range(0, len(tokens), length)
            else:
                starts = range(rng.randint(0, len(tokens) % length), len(tokens) - length + 1, length)
            for start in starts:
                piece = tokens[start : start + length]
                if len(piece) >= SHORTEST:
                    found.append(Window(piece.clone(), part.document, part.start + start))

    _must_hold(source, tokens_seen, length)
    if not found:
        raise UsageError(
            "{source}: all {count} documents are shorter than {least} tokens, and windows do not cross documents. "
            "Give longer documents, for instance by joining lines that belong together.",
            source=source,
            count=len(order),
            least=SHORTEST,
        )
    return found if count is None else rng.sample(found, min(count, len(found)))


def _must_hold(source: str, tokens: int, length: int) -> None:
    """Raises UsageError where there are fewer tokens than one window has."""
    if tokens >= length:
        return
    if tokens < SHORTEST:
        raise UsageError(
            "{source}: text shorter than a window: it has {tokens} tokens, one window is {length}. Give more text.",
            source=source,
            tokens=tokens,
            length=length,
        )
    raise UsageError(
        "{source}: text shorter than a window: it has {tokens} tokens, one window is {length}. Give more text, or "
        "a window of at most {tokens} tokens.",
        source=source,
        tokens=tokens,
        length=length,
    )


class _Part(NamedTuple):
    """Letters `start` … `end` of a document."""

    document: int
    start: int
    end: int


def _parts(document: int, text: str, length: int, longest: int) -> list[_Part]:
    """A document, or the pieces of a long one, each of them enough for some windows."""
    if len(text) <= longest:
        return [_Part(document, 0, len(text))]
    size = max(PIECE, 16 * length)
    found, start = [], 0
    while start < len(text):
        end = start + size
        if end + size // 2 >= len(text):
            end = len(text)
        else:
            near = max(text.rfind("\n", end - size // 8, end), text.rfind(" ", end - size // 8, end))
            end = near + 1 if near >= 0 else end
        if not text[start:end].isspace():
            found.append(_Part(document, start, end))
        start = end
    return found


def _tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Tensor]:
    """Token ids int64 of each text; not many letters are tokenized at once."""
    some: list[str] = []
    for number, text in enumerate(texts, start=1):
        some.append(text)
        if number == len(texts) or sum(map(len, some)) + len(texts[number]) > LETTERS_AT_ONCE:
            for row in encode(some, tokenizer):
                yield torch.tensor(row, dtype=torch.int64)
            some = []


def batch_indices(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Positions of windows grouped by equal length, at most `max_tokens` tokens a group but always one window.

    Longest first (memory runs out at the start or not at all); within a length the order is kept.
    """
    by_length: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        by_length.setdefault(length, []).append(i)
    groups = []
    for length in sorted(by_length, reverse=True):
        rows = max(1, max_tokens // max(1, length))
        members = by_length[length]
        groups += [members[i : i + rows] for i in range(0, len(members), rows)]
    return groups


def batches(windows: Sequence[Tensor], max_tokens: int) -> list[Tensor]:
    """The windows as int64 [b, L] tensors, equal lengths together, b * L <= `max_tokens` (or b = 1): no padding."""
    groups = batch_indices([len(window) for window in windows], max_tokens)
    return [torch.stack([windows[i] for i in group]) for group in groups]


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each text, after the token the tokenizer puts before a text by itself (its bos), if it does.

    Nothing is put after a text, also where the tokenizer would close it with an eos: it may go on. A text that begins
    with the bos already, as a chat template writes it, gets no second one.
    """
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    leads = full[0] if full[:1] != plain[:1] and full[1 : 1 + len(plain)] == plain else None
    rows = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return [row if leads is None or row[:1] == [leads] else [leads, *row] for row in rows]
