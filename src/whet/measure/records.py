"""Material of aspects: records of one kind, from a .jsonl file or a list, read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from whet.errors import MachineError, UsageError, did_you_mean
from whet.messages import Message
from whet.strict import Strict, checked, parse_json

Material = str | Path | Sequence[Mapping[str, Any]]
R = TypeVar("R", bound=Strict)


def read_records(kind: type[R], source: Material, example: str) -> list[R]:
    """Records of `kind`: a .jsonl file (one object a line, UTF-8, empty lines skipped), or a list of such objects.

    example: a line as it should be. Raises UsageError, with the line or the position, for no file, no records, JSON
    that does not parse, an unknown or missing key and a value of the wrong kind; MachineError for a file that cannot be
    read.
    """
    if not isinstance(source, str | Path):
        records = [
            checked(kind, record, Message("record {number}", number=number)) for number, record in enumerate(source)
        ]
    else:
        records = [_record(kind, line, Path(source), number, example) for number, line in _lines(Path(source))]
    if not records:
        where = source if isinstance(source, str | Path) else Message("the list")
        raise UsageError("{where} is empty. Give at least one record, such as {example}.", where=where, example=example)
    return records


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("{path}: not UTF-8 at byte {at}. Convert it to UTF-8.", path=path, at=error.start) from error
    except FileNotFoundError as error:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError("{path}: no such file.{near}", path=path, near=did_you_mean(path.name, siblings)) from error
    except OSError as error:
        raise MachineError(
            "{path}: cannot be read ({error}). Check that it is a file of yours.", path=path, error=error.strerror
        ) from error
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _record(kind: type[R], line: str, path: Path, number: int, example: str) -> R:
    where = Message("{path}, line {line}", path=path, line=number)
    try:
        value = parse_json(line)
    except json.JSONDecodeError as error:
        raise UsageError(
            "{where}: not JSON ({error} at column {column}). Each line holds one object, such as {example}.",
            where=where,
            error=error.msg,
            column=error.colno,
            example=example,
        ) from error
    return checked(kind, value, where)
