"""Near duplicates: pairs that share bands of a MinHash signature (Broder 1997; Leskovec, Rajaraman and Ullman, Mining
of Massive Datasets, §3.4), each verified by the Jaccard similarity of the texts' shingles themselves.

A signature has 24 bands of 6 values. Two texts of similarity 0.8 share one with probability 0.9993, two of 0.5 with
0.31; what is verified costs time and nothing else. Memory is a band at a time, 16 bytes a text; signatures lie on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from whet.curation.units import Hashes, shingles, units_of
from whet.events import Stage

SIMILAR = 0.8  # Jaccard similarity from which texts are near duplicates
SHINGLE = 3  # units; a Korean word with its particle is about as many letters
BANDS, ROWS = 24, 6
_NEIGHBOURS = 16  # of a band that is shared, with whom a text is compared, beside the first
_SETS = 4096  # of shingles that are kept while pairs are verified


def signatures(texts: list[str], seed: int) -> Hashes:
    """Band keys [texts, BANDS] of each text; a text without units has keys of 0, which stand for nothing."""
    hashes, text = shingles(units_of(texts), SHINGLE)
    keys = np.zeros((len(texts), BANDS), np.uint64)
    if not len(hashes):
        return keys
    present, starts = np.unique(text, return_index=True)
    chance = np.random.default_rng(seed)
    factors = chance.integers(0, 1 << 63, (2, BANDS * ROWS), np.uint64)
    factors[0] = factors[0] * np.uint64(2) + np.uint64(1)
    for band in range(BANDS):
        key = np.full(len(present), band + 1, np.uint64)
        for row in range(band * ROWS, (band + 1) * ROWS):
            least = np.minimum.reduceat(hashes * factors[0, row] + factors[1, row] >> np.uint64(16), starts)
            key = (key ^ least) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        keys[present, band] = key | np.uint64(1)
    return keys


def candidates(keys: NDArray[np.uint64], alive: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) of the texts `alive` that share a band, by the later, then by the earlier.

    Of the texts that share one, each is compared with the 16 before it and with the first.
    """
    pairs: NDArray[np.uint64] = np.empty(0, np.uint64)
    for band in range(keys.shape[1]):
        column = np.asarray(keys[:, band])[alive]
        order = np.argsort(column, kind="stable")
        column, numbers = column[order], alive[order]
        found = []
        for apart in range(1, min(_NEIGHBOURS + 1, len(column))):
            same = (column[apart:] == column[:-apart]) & (column[apart:] != 0)
            if not same.any():
                break
            found.append(_coded(numbers[apart:][same], numbers[:-apart][same]))
        if found:
            begins = np.concatenate(([True], column[1:] != column[:-1]))
            leader = numbers[np.maximum.accumulate(np.where(begins, np.arange(len(column)), 0))]
            far = ~begins & (column != 0)
            found.append(_coded(numbers[far], leader[far]))
            pairs = np.unique(np.concatenate((pairs, *found)))
    for pair in pairs:
        yield int(pair >> np.uint64(32)), int(pair & np.uint64(0xFFFFFFFF))


def near_duplicates(
    keys: NDArray[np.uint64],
    alive: NDArray[np.int64],
    text: Callable[[int], str],
    protected: Callable[[int], bool],
    stage: Stage,
) -> dict[int, int]:
    """Each text that is a near duplicate of an earlier one that stays, with that one. `text`: by its number."""

    @lru_cache(_SETS)
    def shingled(number: int) -> Hashes:
        return shingles(units_of([text(number)]), SHINGLE)[0]

    found: dict[int, int] = {}
    done = stage.done
    for later, earlier in candidates(keys, alive):
        stage.reach(min(done + later, stage.of - 1))
        if later in found or earlier in found or protected(later):
            continue
        if jaccard(shingled(later), shingled(earlier)) >= SIMILAR:
            found[later] = earlier
    stage.reach(stage.of)
    return found


def jaccard(one: Hashes, other: Hashes) -> float:
    """Shared over all, of two sorted sets of hashes."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(1, len(one) + len(other) - shared)


def _coded(later: NDArray[np.int64], earlier: NDArray[np.int64]) -> NDArray[np.uint64]:
    return later.astype(np.uint64) << np.uint64(32) | earlier.astype(np.uint64)
