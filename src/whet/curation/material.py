"""What is read beside the text: texts of evaluation, questions of skills."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from whet.measure.items import Item, read_skills
from whet.strict import parse_json
from whet.text import Stream
from whet.text.readers import JSON_LINES


def wordings(source: str | Path | Sequence[Any]) -> Iterable[Sequence[str]]:
    """The texts of a file of evaluation, each in the wordings in which it may occur: a .jsonl file of questions as
    `compare` takes them, or any text. From Python also a list of either."""
    if isinstance(source, (str, Path)):
        return map(_of_item, read_skills(source)) if _holds_questions(Path(source)) else _texts(source)
    if source and isinstance(source[0], Mapping):
        return map(_of_item, read_skills(source))
    return ([text] for text in source)


def _texts(source: str | Path) -> Iterator[Sequence[str]]:
    for text, _ in Stream(source):
        yield [text]


def _of_item(item: Item) -> Sequence[str]:
    """The prompt alone, with its answer, and where the prompt is the same for all the right choice alone."""
    if item.choices:
        right = item.choices[item.label]
        return [item.prompt, item.prompt + right, right]
    return [item.prompt, f"{item.prompt} {item.answer}"]


def _holds_questions(file: Path) -> bool:
    if file.suffix.lower() not in JSON_LINES or not file.is_file():
        return False
    with file.open("rb") as lines:
        first = next((line for line in lines if line.strip()), b"")
    try:
        record = parse_json(first.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return False
    return isinstance(record, dict) and {"skill", "prompt"} <= record.keys()
