"""How many letters a tokenizer may make of one: its normalizer is data from the model's folder, and a few entries that
replace a letter by many, one behind the other, make gigabytes of a word."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from whet.errors import UsageError

MOST = 200  # letters of one; Unicode's own longest is 18, which sentencepiece writes in 33 bytes
MOST_OF_TEXT = 8.0  # times that a text of common letters may grow: Korean in single letters (NFD) grows to three times
# Every printable letter of ASCII, and some of other scripts.
SAMPLE = (
    "".join(map(chr, range(32, 127)))
    + " the and of to in\n\t 가나다라마바사 한국어 日本語 中文 кириллица ελληνικά العربية é ü ñ"
)
_PARTS = ("normalizers", "pretokenizers", "decoders")


def check_growth(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raises UsageError for a tokenizer that may make more than 200 letters of one, or makes eight of most."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    normalizer = getattr(core, "normalizer", None)
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        part = getattr(core, name, None)
        if part is None:
            continue
        times = growth(json.loads(part.__getstate__()))
        if times > MOST:
            raise UsageError(
                "{folder}: the {part} of its tokenizer may make {times:.3g} letters of one. No model needs that; use "
                "another copy.",
                folder=folder,
                part=name,
                times=times,
            )
    if normalizer is not None:
        times = len(normalizer.normalize_str(SAMPLE)) / len(SAMPLE)
        if times > MOST_OF_TEXT:
            raise UsageError(
                "{folder}: the normalizer of its tokenizer makes {times:.3g} letters of each. No model needs that; "
                "use another copy.",
                folder=folder,
                times=times,
            )


def growth(part: Mapping[str, Any]) -> float:
    """Letters that a part of a tokenizer, as tokenizer.json has it, makes of one at most. What it adds once to a whole
    text does not count."""
    kind = part.get("type")
    if kind == "Sequence":
        return math.prod(growth(one) for name in _PARTS for one in part.get(name) or ())
    if kind == "Replace":
        found, size = part["pattern"].get("String"), len(part["content"])
        if found:
            return max(1.0, size / len(found))
        # what matches nothing at all matches between any two letters
        return 1.0 + size if _matches_nothing(part["pattern"].get("Regex", "")) else max(1.0, float(size))
    if kind == "Precompiled":
        return max(1.0, float(_longest(part.get("precompiled_charsmap") or "")))
    return 1.0


def _matches_nothing(pattern: str) -> bool:
    """Whether an expression matches an empty text, as far as Python knows it."""
    try:
        return re.fullmatch(pattern, "") is not None
    except re.error:
        return True


def _longest(charsmap: str) -> int:
    """Bytes of the longest text in a table of sentencepiece: the size of a trie, the trie, texts that end in 0."""
    try:
        data = base64.b64decode(charsmap)
    except binascii.Error:
        return 1
    start = 4 + int.from_bytes(data[:4], "little")
    return max(map(len, data[start:].split(b"\0")), default=1)
