"""Documents on disk while they are judged: texts in a file, and of each a few numbers in memory (some 50 bytes)."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whet.curation.units import normal

# Why a document does not stay, in the order in which reasons are looked for; 0: it stays.
REASONS = (
    "",
    "exact duplicate",
    "language",
    "too short",
    "too long",
    "leak",
    "near duplicate",
    "perplexity too low",
    "perplexity too high",
    "quota",
)
_AT_ONCE = 1 << 20  # letters
WHY = {reason: number for number, reason in enumerate(REASONS)}


class Store:
    """Documents in the order in which they came, each by its number."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w+b")
        self._ends = array("q", [0])
        self._digests = bytearray()
        self._sources, self._languages = array("i"), array("i")
        self._sizes, self._fixed = array("q"), array("b")
        self.files: dict[str, int] = {}  # in the order in which they came
        self.languages: dict[str, int] = {}
        self._why: NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, text: str, file: str, language: str, fixed: bool) -> None:
        """One document more. fixed: nothing but a leak removes it."""
        data = text.encode("utf-8", "surrogatepass")
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        self._digests += hashlib.blake2b(normal(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._sources.append(self.files.setdefault(file, len(self.files)))
        self._languages.append(self.languages.setdefault(language, len(self.languages)))
        self._sizes.append(len(text))
        self._fixed.append(fixed)

    def text(self, number: int) -> str:
        """A document."""
        self._file.flush()
        start, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), end - start, start).decode("utf-8", "surrogatepass")

    def texts(
        self, numbers: NDArray[np.int64], letters: int = 1 << 20
    ) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
        """Documents in batches of about so many letters."""
        first, size = 0, 0
        for place, number in enumerate(numbers, 1):
            size += self._sizes[number]
            if size >= _AT_ONCE or place == len(numbers):
                some = numbers[first:place]
                yield some, [self.text(one) for one in some]
                first, size = place, 0

    def digest(self, number: int) -> str:
        """What a document is known by, hexadecimal: the same of copies that differ in case or white space alone."""
        return self._digests[16 * number : 16 * number + 16].hex()

    def close(self) -> None:
        self._file.close()

    @property
    def why(self) -> NDArray[np.int8]:
        """Of each document the number of the reason for which it does not stay. To be set once all are there."""
        if self._why is None:
            self._why = np.zeros(len(self), np.int8)
        return self._why

    @property
    def sources(self) -> NDArray[np.int32]:
        """Of each document its file's number in `files`."""
        return np.frombuffer(self._sources, np.int32)

    @property
    def language(self) -> NDArray[np.int32]:
        """Of each document its language's number in `languages`."""
        return np.frombuffer(self._languages, np.int32)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Letters of each document."""
        return np.frombuffer(self._sizes, np.int64)

    @property
    def bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of each document."""
        ends = np.frombuffer(self._ends, np.int64)
        return ends[1:] - ends[:-1]

    @property
    def fixed(self) -> NDArray[np.bool_]:
        """Of each document whether nothing but a leak removes it."""
        return np.frombuffer(self._fixed, np.int8).astype(bool)

    @property
    def staying(self) -> NDArray[np.int64]:
        """Numbers of the documents that stay so far."""
        return np.flatnonzero(self.why == 0)

    def mark(self, numbers: NDArray[np.int64], reason: str) -> None:
        """These do not stay, unless they are fixed or an earlier reason has taken them."""
        mine = numbers[(self.why[numbers] == 0) & (~self.fixed[numbers] | (reason == "leak"))]
        self.why[mine] = WHY[reason]

    def copies(self) -> NDArray[np.int64]:
        """Numbers of the documents that are copies of an earlier one."""
        halves = np.frombuffer(bytes(self._digests), np.uint64).reshape(-1, 2)
        order = np.lexsort((np.arange(len(self)), halves[:, 1], halves[:, 0]))
        same = (halves[order][1:] == halves[order][:-1]).all(axis=1)
        return np.sort(order[1:][same])
