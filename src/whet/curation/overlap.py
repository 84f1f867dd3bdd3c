"""Texts that training must not have seen, and which documents hold them.

Shared runs of 13 words, or of 26 letters of a script without spaces (a Korean word with its particle is two to three),
as of GPT-3 (arXiv 2005.14165, appendix C) and those after it. One shared run alone proves little where texts follow a
pattern: a document leaks that shares half of the runs of an evaluation text, half of its own, or 50. A text of up to
two runs, as most questions are, leaks as a whole. Short ones begin and end where words do, or the king would be found
in the queen (왕, 여왕). Of less than 5 words, or 10 letters, nothing can be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whet.curation.units import Hashes, Places, Units, runs, units_of

WORDS, LETTERS = 13, 26  # units of a run
FEWEST_WORDS, FEWEST_LETTERS = 5, 10  # of a text that is looked for as a whole
SHARE = 0.5  # of the runs of either text
MANY = 50  # runs
_COMMON = 50  # evaluation texts with one run that are looked at: a pattern stands in thousands
_AT_ONCE = 500  # texts


class _Index(NamedTuple):
    """Hashes of runs of one length, sorted, [h], and for each the texts that have it."""

    hashes: Hashes
    texts: NDArray[np.int64]


@dataclass(frozen=True)
class Shared:
    """What a batch of documents shares: for each, the source of the evaluation text that it holds, or -1, and whether
    it shares a run at all."""

    source: NDArray[np.int64]
    touches: NDArray[np.bool_]


@dataclass
class Evaluation:
    """Texts of evaluation. `sources`: where they are from; `counts`: how many texts of each, `unchecked`: of those the
    ones that are too short."""

    sources: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    unchecked: list[int] = field(default_factory=list)
    _source: list[int] = field(default_factory=list)  # of each text
    _runs: list[int] = field(default_factory=list)  # that each text has
    _found: dict[int, list[tuple[Hashes, Places]]] = field(default_factory=dict)

    def add(self, source: str, texts: Iterable[Sequence[str]]) -> None:
        """Texts of a source, each in the wordings in which it may occur."""
        self.sources.append(source)
        self.counts.append(0)
        self.unchecked.append(0)
        batch: list[Sequence[str]] = []
        for wordings in texts:
            batch.append(wordings)
            if len(batch) == _AT_ONCE:
                self._add(batch)
                batch = []
        if batch:
            self._add(batch)

    def shared(self, units: Units) -> Shared:
        """What documents share with these texts."""
        documents = len(units.wide)
        source, touches = np.full(documents, -1, np.int64), np.zeros(documents, bool)
        for length, index in self._indices.items():
            hashes, document = runs(units, length, whole=length < LETTERS)
            first = np.searchsorted(index.hashes, hashes)
            hit = index.hashes[np.minimum(first, len(index.hashes) - 1)] == hashes
            if not hit.any():
                continue
            last = np.searchsorted(index.hashes, hashes[hit], side="right")
            totals = _totals(hashes, document, documents)
            self._judge(length, index, first[hit], last, hashes[hit], document[hit], totals, source, touches)
        return Shared(source, touches)

    def overlaps(self, others: Evaluation) -> int:
        """How many of these sources' texts hold one of another set: what gates and what reports have to be apart."""
        return sum(others._holds(found, length) for length, some in self._found.items() for found in some)

    def _holds(self, found: tuple[Hashes, Places], length: int) -> int:
        index = self._indices.get(length)
        if index is None or not len(index.hashes):
            return 0
        mine = np.isin(found[0], index.hashes)
        totals, shared = np.unique(found[1], return_counts=True), np.unique(found[1][mine], return_counts=True)
        of = totals[1][np.searchsorted(totals[0], shared[0])]
        return int((shared[1] >= _needed(of, length)).sum())

    def _judge(
        self,
        length: int,
        index: _Index,
        first: Places,
        last: Places,
        hashes: Hashes,
        document: Places,
        totals: Places,
        source: NDArray[np.int64],
        touches: NDArray[np.bool_],
    ) -> None:
        """Mark documents that leak, or touch, by their runs that are found: of `index` from `first` to `last`."""
        count = last - first
        place = np.repeat(first, count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        triples = np.unique(
            np.stack((np.repeat(document, count), index.texts[place], np.repeat(hashes, count).view(np.int64))), axis=1
        )
        pairs, shared = np.unique(triples[:2], axis=1, return_counts=True)
        touches[pairs[0]] = True
        of = np.minimum(np.array(self._runs)[pairs[1]], totals[pairs[0]])
        leaks = (shared >= _needed(of, length)) | (shared >= MANY)
        source[pairs[0][leaks]] = np.array(self._source)[pairs[1][leaks]]

    @cached_property
    def _indices(self) -> dict[int, _Index]:
        found = {}
        for length, parts in sorted(self._found.items()):
            hashes = np.concatenate([one for one, _ in parts])
            texts = np.concatenate([one for _, one in parts])
            order = np.lexsort((texts, hashes))
            hashes, texts = hashes[order], texts[order]
            if length in (WORDS, LETTERS):
                begins = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
                place = np.arange(len(hashes)) - np.repeat(begins, np.diff([*begins, len(hashes)]))
                hashes, texts = hashes[place < _COMMON], texts[place < _COMMON]
            found[length] = _Index(hashes, texts)
        return found

    def _add(self, batch: Sequence[Sequence[str]]) -> None:
        number = len(self.sources) - 1
        wordings = [wording for texts in batch for wording in texts]
        owner = np.repeat(np.arange(len(batch)), [len(texts) for texts in batch])
        units = units_of(wordings)
        told = np.zeros(len(batch), bool)
        longest = np.where(units.wide, LETTERS, WORDS)
        fewest = np.where(units.wide, FEWEST_LETTERS, FEWEST_WORDS)
        for length in range(FEWEST_WORDS, LETTERS + 1):
            whole = (units.counts == length) & (length < longest) & (length >= fewest)
            mine = whole | ((units.counts >= length) & (longest == length))
            self._take(units, length, mine, number)
            told[owner[mine]] = True
        self.counts[number] += len(batch)
        self.unchecked[number] += int((~told).sum())

    def _take(self, units: Units, length: int, mine: NDArray[np.bool_], number: int) -> None:
        """The runs of that length of these texts."""
        if not mine.any():
            return
        hashes, text = runs(units, length, whole=length < LETTERS)
        kept = mine[text]
        pairs = np.unique(np.stack((text[kept], hashes[kept].view(np.int64))), axis=1)
        names, inverse, counts = np.unique(pairs[0], return_inverse=True, return_counts=True)
        self._found.setdefault(length, []).append((pairs[1].view(np.uint64), inverse + len(self._source)))
        self._source += [number] * len(names)
        self._runs += counts.tolist()


def _needed(total: Any, length: int) -> Any:
    """How many of so many runs a text has to share: all, where it is so short that a few are a pattern's."""
    return np.where(total <= length, total, SHARE * total)


def _totals(hashes: Hashes, document: Places, documents: int) -> Places:
    """How many different runs each document has."""
    order = np.lexsort((hashes, document))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(document[order]) != 0) | (hashes[order][1:] != hashes[order][:-1])
    return np.bincount(document[order][new], minlength=documents)
