"""`vocab_map.json`: which rows of the original's vocabulary a model with fewer tokens has.

    rows    how many the first original has
    ids     the id that each token had there, by its id now

Every later step takes the file over, so it always tells of the first original, however often tokens were cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.errors import UsageError
from whet.strict import parse_json

VOCAB_MAP = "vocab_map.json"


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
    """The map of a model folder, or of the folder that a .gguf lies in; None where no token was cut. Raises UsageError
    for one that is damaged."""
    path = Path(model)
    file = (path.parent if path.is_file() else path) / VOCAB_MAP
    if not file.is_file():
        return None
    try:
        said = parse_json(file.read_text(encoding="utf-8"))
        rows, ids = said["rows"], said["ids"]
        right = said["format"] == 1 and all(type(number) is int and 0 <= number < rows for number in ids)
    except (ValueError, LookupError, TypeError):
        right = False
    if not right or len(set(ids)) != len(ids):
        raise UsageError("{file} is damaged. Copy or download the folder again, or make it anew.", file=file)
    return VocabMap(rows, tuple(ids))


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
