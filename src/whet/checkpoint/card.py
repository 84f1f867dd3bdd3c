"""The front matter of a model card, README.md: what its author says of licence, languages and tags.

Anybody may have written it, so it is read in bounded time and memory: a limited number of bytes, no anchors, aliases or
merges, of which a few hundred bytes make gigabytes. Dates stay as they are written (2024-02-30 is none).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from whet.errors import MachineError
from whet.strict import PlainLoader

_MOST = 1 << 16  # bytes; the longest cards of the hub, with all their results, have some 40,000
_FIELDS = ("license", "license_name", "license_link", "language", "tags", "pipeline_tag", "library_name")
_LINE = re.compile(r"(\w+)[ \t]*:[ \t]*(.*)")
_ITEM = re.compile(r"[ \t]*-[ \t]+(.+)")


def read_card(file: Path) -> dict[str, Any]:
    """Of the front matter of `file` what a lighter model takes over; nothing where there is none.

    What is not plain YAML is read line by line, as text. Raises MachineError where the file cannot be read.
    """
    if not file.is_file():
        return {}
    try:
        with file.open("rb") as stream:
            text = stream.read(_MOST).decode("utf-8", errors="replace")
    except OSError as error:
        raise MachineError(
            "{file} cannot be read ({error}). Its licence and tags go into the lighter folder: make it readable, or "
            "remove it.",
            file=file,
            error=error.strerror,
        ) from error
    match = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---", text, re.DOTALL)
    if match is None:
        return {}
    try:
        found = yaml.load(match[1], CardLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        found = _by_line(match[1])
    return {name: found[name] for name in _FIELDS if name in found} if isinstance(found, dict) else {}


def _by_line(text: str) -> dict[str, Any]:
    """Fields and their items as they stand in the lines of `text`, as text."""
    found: dict[str, Any] = {}
    name = ""
    for line in text.splitlines():
        if (field := _LINE.fullmatch(line)) is not None:
            name = field[1]
            found[name] = _unquoted(field[2]) or []
        elif (item := _ITEM.fullmatch(line)) is not None and isinstance(found.get(name), list):
            found[name].append(_unquoted(item[1]))
    return {name: value for name, value in found.items() if value}


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'").strip()


class CardLoader(PlainLoader):
    """Reads dates as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in PlainLoader.yaml_implicit_resolvers.items()
    }
