"""How much of a text is read, and where.

A text of more bytes than are needed is read at places that are spread over all of it: one in each of as many equal
stretches, anywhere in its stretch. Where they are depends on the size of the text alone, so that whoever reads the same
text finds the same documents in it, and what was kept for reporting is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from whet.messages import Message

_MOST = 1 << 34
_A_TOKEN = 16  # bytes of text in which a token is found for sure, also where places begin and end in documents


@dataclass(frozen=True)
class Amount:
    """Text of up to `most` bytes is read whole; of more, `most` bytes in places of `piece` bytes."""

    most: int = 16 << 20
    piece: int = 64 << 10

    @classmethod
    def enough(cls, count: int | None, length: int) -> Amount:
        """What `count` windows of `length` tokens are drawn from, and no less than the usual; None: the usual."""
        return cls(max(cls.most, _A_TOKEN * (count or 0) * length), max(cls.piece, _A_TOKEN * length))

    @classmethod
    def read(cls, value: Any) -> Amount | None:
        """What a lineage says of it; None where that is nothing, or nothing that can be."""
        if not isinstance(value, dict):
            return None
        most, piece = value.get("most"), value.get("piece")
        right = isinstance(most, int) and isinstance(piece, int) and 0 < piece <= most <= _MOST
        return cls(most, piece) if right else None  # type: ignore[arg-type]

    def __or__(self, other: Amount) -> Amount:
        """What is enough for both."""
        return Amount(max(self.most, other.most), max(self.piece, other.piece))


class Span(NamedTuple):
    """Bytes of a file: what begins in `start` … `end` is read, at most up to `until`; the next begin at `after`."""

    start: int
    end: int
    until: int
    after: int


def places(sizes: Sequence[int], amount: Amount) -> list[list[Span]] | None:
    """Where files of these sizes are read, file by file; None where they are read whole."""
    whole = sum(sizes)
    if whole <= amount.most:
        return None
    count = max(1, amount.most // amount.piece)
    stretch = whole / count
    chance = Random(whole)
    starts = [int(i * stretch + chance.random() * max(0.0, stretch - amount.piece)) for i in range(count)]
    starts[0] = 0
    found: list[list[Span]] = []
    first = 0
    for size in sizes:
        found.append(_spans([start - first for start in starts if first <= start < first + size], size, amount.piece))
        first += size
    return found


def _spans(starts: Sequence[int], size: int, piece: int) -> list[Span]:
    """The places of one file. One that is no longer than a place is read whole, or not at all."""
    if size <= piece:
        starts = [0] if starts else []
    return [
        Span(start, min(start + piece, after), min(start + 2 * piece, after), after)
        for start, after in zip(starts, [*starts[1:], size], strict=False)
    ]


class Line(NamedTuple):
    """Where a record stands, for errors: `line` of `path`, or the one that begins at byte `at`."""

    path: Path
    line: int | None
    at: int = 0

    def told(self) -> Message:
        """The place in words."""
        line = self.line if self.line is not None else 1 + count_lines(self.path, self.at)
        return Message("{path}, line {line}", path=self.path, line=line)


class Row(NamedTuple):
    """Where a record stands, for errors: row number `row` of `path`."""

    path: Path | str
    row: int

    def told(self) -> Message:
        """The place in words."""
        return Message("{path}, row {row}", path=self.path, row=self.row)


Where = Line | Row | str


def in_words(where: Where) -> str:
    """Where a record stands, for a message."""
    return where if isinstance(where, str) else where.told()


def count_lines(path: Path, end: int) -> int:
    """Line ends in the first `end` bytes of a file."""
    count = 0
    with path.open("rb") as file:
        while end > 0 and (data := file.read(min(end, 1 << 20))):
            count += data.count(b"\n")
            end -= len(data)
    return count
