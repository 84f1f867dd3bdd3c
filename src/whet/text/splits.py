"""Three disjoint parts of a text: what solves, what verifies a plan or gates a step, what reports (opened once).

With enough documents each goes whole to one part, by a hash of its content and the seed, so that the order of the file
does not matter and copies of a document stay together. With few, or with one that is most of the text, documents have
to be cut: then the text is cut by position into three contiguous regions at line or sentence ends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from whet.errors import UsageError

FEWEST_DOCUMENTS = 20  # below this a tenth is less than two documents
SHARES = (0.8, 0.1, 0.1)
# where a region may end, the better kind first: end of line, of sentence (also with the full-width stops), of word
BOUNDARIES = (re.compile(r"\n+"), re.compile(r"(?:[.!?…]{1,100}[\"'”’)]*\s+|[。！？]+)"), re.compile(r"\s+"))
LOOK = 0.025  # a boundary counts as near within this share of the text


@dataclass(frozen=True)
class Splits:
    """The three parts, each a list of documents in their first order, and `how` the text was divided."""

    solve: list[str]
    verify: list[str]
    report: list[str]
    how: Literal["documents", "positions"]


def split(documents: Sequence[str], seed: int = 0) -> Splits:
    """Divide `documents` into solve 80 %, verify 10 % and report 10 %, disjoint, the same for the same text and seed.

    By documents (shares are of distinct documents, rounded, at least one each) when there are 20 distinct ones or more
    and none is over half of the text. Otherwise by position (shares are of characters; the seed has no say): the solve
    region first, then verify, then report; a document that crosses a border is cut there, and repeated documents are
    kept once, since their copies could land on both sides. Regions end at the line end nearest to the border if there
    is one within 2.5 % of the text, else at a sentence end, else between words, else exactly there.

    Raises UsageError when there is no text or when a region would be blank.
    """
    distinct = list(dict.fromkeys(document for document in documents if document.strip()))
    if not distinct:
        raise UsageError("The text is empty: nothing to calibrate or check with. Give a text with words in it.")
    characters = sum(map(len, distinct))
    if len(distinct) < FEWEST_DOCUMENTS or max(map(len, distinct)) > characters / 2:
        return _by_position(distinct, characters)

    ranked = sorted(distinct, key=lambda document: _hash(document, seed))
    verify_count = round(SHARES[1] * len(ranked))
    report_count = round(SHARES[2] * len(ranked))
    # report takes the lowest hashes, then verify: documents added later seldom move others into a checking part
    report = set(ranked[:report_count])
    verify = set(ranked[report_count : report_count + verify_count])
    present = [document for document in documents if document.strip()]
    return Splits(
        solve=[d for d in present if d not in report and d not in verify],
        verify=[d for d in present if d in verify],
        report=[d for d in present if d in report],
        how="documents",
    )


def _hash(document: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0".encode() + document.encode("utf-8", "surrogatepass")).digest()


def _by_position(documents: list[str], characters: int) -> Splits:
    borders = [SHARES[0] * characters, (SHARES[0] + SHARES[1]) * characters]
    parts: list[list[str]] = [[], [], []]
    start, region = 0, 0
    for document in documents:
        rest = document
        # the border may lie before this document when the last cut overshot: then the whole document belongs after it
        while region < 2 and start + len(rest) > borders[region]:
            cut = _boundary(rest, round(borders[region] - start), round(LOOK * characters))
            if rest[:cut].strip():
                parts[region].append(rest[:cut])
            rest, start, region = rest[cut:], start + cut, region + 1
        if rest.strip():
            parts[region].append(rest)
        start += len(rest)
    if not all(parts):
        raise UsageError(
            "The text ({characters} characters, {documents} distinct documents) is too short to be divided into a "
            "part to solve with, one to verify and one to report. Give more text, or a separate text for evaluation.",
            characters=characters,
            documents=len(documents),
        )
    return Splits(solve=parts[0], verify=parts[1], report=parts[2], how="positions")


def _boundary(text: str, near: int, look: int) -> int:
    """The position in `text` at which to cut, near `near`: after the nearest line end, sentence end or space."""
    near = min(max(near, 0), len(text))
    low, high = max(0, near - look), min(len(text), near + look)
    for pattern in BOUNDARIES:
        ends = [match.end() for match in pattern.finditer(text, low, high)]
        if low == 0:
            ends.append(0)  # between this document and the one before
        if high == len(text):
            ends.append(len(text))
        if ends:
            return min(ends, key=lambda end: abs(end - near))
    return near
