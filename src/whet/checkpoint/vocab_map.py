"""`vocab_map.json`: which rows of the original's vocabulary a model with fewer tokens has.

    rows    how many the first original has
    ids     the id that each token had there, by its id now

Every later step takes the file over, so it always tells of the first original, however often tokens were cut. A .gguf
has both among its entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whet.checkpoint.gguf import is_gguf, read_gguf
from whet.errors import UsageError
from whet.strict import parse_json

VOCAB_MAP = "vocab_map.json"
_GGUF = "whet.vocab_map"


@dataclass(frozen=True)
class VocabMap:
    """`ids[i]`: the id in the first original, which has `rows`, of what is token i now."""

    rows: int
    ids: tuple[int, ...]

    def then(self, ids: Sequence[int]) -> VocabMap:
        """Of a model that has, of the tokens here, those of `ids`."""
        return VocabMap(self.rows, tuple(self.ids[number] for number in ids))

    def document(self) -> dict[str, Any]:
        """As it is written."""
        return {"format": 1, "rows": self.rows, "ids": list(self.ids)}


def read_map(model: str | Path) -> VocabMap | None:
    """The map of a model folder or of a .gguf; None where no token was cut. Raises UsageError for one that is
    damaged."""
    path = Path(model)
    file, said = path, None
    if is_gguf(path):
        entries = read_gguf(path).metadata
        said = {name: entries[f"{_GGUF}.{name}"] for name in ("rows", "ids") if f"{_GGUF}.{name}" in entries}
    elif (file := (path if path.is_dir() else path.parent) / VOCAB_MAP).is_file():
        said = _document(file)
    if not said:
        return None
    rows, ids = said.get("rows"), said.get("ids")
    numbers = ids.tolist() if isinstance(ids, np.ndarray) else ids
    if not isinstance(rows, int) or not isinstance(numbers, list) or not numbers:
        raise _damaged(file)
    if not all(type(one) is int and 0 <= one < rows for one in numbers) or len(set(numbers)) != len(numbers):
        raise _damaged(file)
    return VocabMap(rows, tuple(numbers))


def gguf_entries(numbers: VocabMap | None) -> dict[str, Any]:
    """A map as a .gguf holds it."""
    if numbers is None:
        return {}
    return {f"{_GGUF}.rows": numbers.rows, f"{_GGUF}.ids": np.array(numbers.ids, dtype=np.int32)}


def _document(file: Path) -> dict[str, Any]:
    try:
        said = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(file) from error
    if not isinstance(said, dict) or said.get("format") != 1:
        raise _damaged(file)
    return said


def _damaged(file: Path) -> UsageError:
    return UsageError(
        "{file}: the map of its tokens is damaged. Copy or download it again, or make it anew.", file=file
    )


def rows_between(original: str | Path, lighter: str | Path) -> list[int] | None:
    """By token of `lighter` its id in `original`; None where both have the same tokens, as far as maps tell. Raises
    UsageError where `lighter` has one that `original` has not."""
    before, after = read_map(original), read_map(lighter)
    if before == after or after is None:
        return None
    if before is None:
        return list(after.ids)
    place = {old: number for number, old in enumerate(before.ids)}
    missing = [old for old in after.ids if old not in place]
    if missing or before.rows != after.rows:
        raise UsageError(
            "{lighter} has {count} tokens that were cut from {original}. Give the original that the lighter model was "
            "made from.",
            lighter=lighter,
            original=original,
            count=len(missing),
        )
    return [place[old] for old in after.ids]
