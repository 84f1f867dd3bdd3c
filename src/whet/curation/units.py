"""Texts as units (words, and letters of scripts that put no spaces between words), hashed many at a time.

A unit is a run of letters and digits; of Hangul, Han, kana, Thai and the like each letter is a unit by itself, so that
Korean spaced in another way is the same; a sign of mathematics or money is one too, since `3 + 4` is not `3 - 4`. Case,
width (NFKC), white space and other marks do not count.

Everything is done with arrays over the letters of a batch of texts: the hash of units i … i + n is the difference of
two sums of a polynomial modulo 2^64, whatever n.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_WORD, _ALONE = 1, 2
_AT_ONCE = 1 << 20  # letters
# Scripts whose letters are units by themselves.
_UNSPACED = ("HANGUL", "CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
_OPERATORS = "-*/%^"  # that Unicode counts as marks


class Units(NamedTuple):
    """Units of some texts: `hashes` [u]; those of text i are `first[i]` … `first[i + 1]`; `begins` [u], whether a word
    begins with one; `wide` [texts], whether most are single letters."""

    hashes: Hashes
    first: Places
    begins: NDArray[np.bool_]
    wide: NDArray[np.bool_]

    @property
    def counts(self) -> Places:
        """How many units each text has."""
        return np.diff(self.first)


def normal(text: str) -> str:
    """A text without differences of case, width and white space: what two copies have in common."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def units_of(texts: Sequence[str]) -> Units:
    """The units of each text, in order. A million letters are taken at a time, of a longer text a piece."""
    pieces = [(place, piece) for place, text in enumerate(texts) for piece in _pieces(text)]
    found: list[tuple[Hashes, NDArray[np.bool_]]] = []
    counts, single = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
    first, size = 0, 0
    for number, (_, piece) in enumerate(pieces, 1):
        size += len(piece)
        if size >= _AT_ONCE or number == len(pieces):
            some = pieces[first:number]
            hashes, begins, of_each, alone = _hashed([text for _, text in some])
            owners = [place for place, _ in some]
            np.add.at(counts, owners, of_each)
            np.add.at(single, owners, alone)
            found.append((hashes, begins))
            first, size = number, 0
    whole = np.concatenate([np.empty(0, np.uint64), *(one for one, _ in found)])
    begin = np.concatenate([np.empty(0, bool), *(one for _, one in found)])
    return Units(whole, np.concatenate(([0], np.cumsum(counts))), begin, 2 * single > counts)


def _pieces(text: str) -> Iterator[str]:
    """A text, cut between words where it is long."""
    start = 0
    while len(text) - start > _AT_ONCE:
        space = text.rfind(" ", start + _AT_ONCE // 2, start + _AT_ONCE)
        end = space if space > 0 else start + _AT_ONCE
        yield text[start:end]
        start = end
    yield text[start:]


def _hashed(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.bool_], Places, Places]:
    """The units of texts one after another, which begin a word, how many each text has, and how many of these are
    single letters."""
    normals = [unicodedata.normalize("NFKC", text).casefold() for text in texts]
    ends = np.cumsum([0, *(len(text) + 1 for text in normals)])
    letters = "".join(f"{text}\n" for text in normals)
    codes = np.frombuffer(letters.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = _kinds()[codes]
    word, alone = kinds == _WORD, kinds == _ALONE
    starts = np.flatnonzero(alone | (word & ~np.concatenate(([False], word[:-1]))))
    # a word ends where the next letter is none of a word; the line end behind each text is none
    stops = np.flatnonzero(alone | (word & ~np.concatenate((word[1:], [False])))) + 1
    sums = _sums(_mixed(codes.astype(np.uint64)))
    hashes = _mixed((sums[stops] - sums[starts]) * _powers(_INVERSE, len(codes) + 1)[starts])
    first = np.searchsorted(starts, ends).astype(np.int64)
    letter = _letters()[codes]
    single = np.concatenate(([0], np.cumsum(letter[starts])))
    begins = ~np.concatenate(([False], (word | letter)[:-1]))[starts]
    return hashes, begins, np.diff(first), np.diff(single[first])


def runs(units: Units, length: int, whole: bool = False) -> tuple[Hashes, Places]:
    """Hashes of every `length` successive units of a text, and the text of each: two arrays of one length. whole: of
    those that begin and end as words do."""
    text = np.repeat(np.arange(len(units.first) - 1), units.counts)
    count = len(text) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    inside = np.flatnonzero(text[:count] == text[length - 1 :])
    if whole:
        edges = np.concatenate((units.begins, [True]))
        edges[units.first] = True
        inside = inside[edges[inside] & edges[inside + length]]
    sums = _sums(units.hashes)
    found = (sums[inside + length] - sums[inside]) * _powers(_INVERSE, len(text) + 1)[inside]
    return _mixed(found + np.uint64(length)), text[inside]


def shingles(units: Units, length: int) -> tuple[Hashes, Places]:
    """The different `length` successive units of each text, of a shorter text all it has, sorted by text."""
    found = [runs(units, length)]
    counts = units.counts
    for shorter in range(1, length):
        if (counts == shorter).any():
            hashes, text = runs(units, shorter)
            mine = counts[text] == shorter
            found.append((hashes[mine], text[mine]))
    hashes = np.concatenate([one for one, _ in found])
    text = np.concatenate([one for _, one in found])
    order = np.lexsort((hashes, text))
    hashes, text = hashes[order], text[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (text[1:] != text[:-1])
    return hashes[new], text[new]


def _sums(values: Hashes) -> Hashes:
    """Sums of value i times base^i before each place, modulo 2^64."""
    return np.concatenate((np.zeros(1, np.uint64), np.cumsum(values * _powers(_BASE, len(values)), dtype=np.uint64)))


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mixed(values: Hashes) -> Hashes:
    """The values with their bits mixed (splitmix64), so that any of them may stand for all."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _kinds() -> NDArray[np.uint8]:
    """What each letter is for units: of a word, one by itself, or nothing (0)."""
    found = np.zeros(0x110000, np.uint8)
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        if category[0] in "LN" or category in ("Mn", "Mc"):
            found[code] = _WORD
        elif category in ("Sm", "Sc"):
            found[code] = _ALONE
    found[[ord(sign) for sign in _OPERATORS]] = _ALONE
    found[_letters()] = _ALONE
    return found


@cache
def _letters() -> NDArray[np.bool_]:
    """Which letters are of scripts that put no spaces between words, or few."""
    found = np.zeros(0x110000, bool)
    for code in range(0xE00, 0x32000):
        letter = chr(code)
        if unicodedata.category(letter) in ("Lo", "Lm"):
            found[code] = unicodedata.name(letter, "").startswith(_UNSPACED)
    return found
