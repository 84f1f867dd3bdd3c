"""Sentences for people as a template and its values: English text for programs, any language for a reader.

A `Message` is its English text, a `str`, and remembers what it was made of. `in_language` makes it again from the
catalogue of a language (`whet/locale/ko.po`), and the messages among its values with it. JSON holds a message as an
object; see `to_json`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from whet.korean import with_particles

_DEEPEST = 9  # messages within messages; a file could nest them without end


class Message(str):
    """`Message("{out} is a file.", out=out)`: the English text, with `template` and `values`.

    template: as `str.format` takes it, always a literal, so that `bench/messages.py` finds it in the source.
    values: what its fields stand for; those that are sentences or parts of one are messages themselves.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> Message:
        return cls._made(template.format(**values), template, values)

    @classmethod
    def _made(cls, text: str, template: str, values: dict[str, Any]) -> Message:
        made = super().__new__(cls, text)
        made.template, made.values = template, values
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Message._made, (str(self), self.template, self.values)

    @classmethod
    def read(cls, value: Any, deeper: int = _DEEPEST) -> Message:
        """A message from JSON. A plain string, as folders of older versions hold notes, is one without values.

        Never fails: a file may say anything. deeper: how many messages within messages are read as such.
        """
        if isinstance(value, Message):
            return value
        found = value if isinstance(value, dict) else {"message": value}
        text = str(found.get("message", ""))
        values = found.get("values")
        inner = {
            name: cls.read(one, deeper - 1) if isinstance(one, dict) and deeper else one
            for name, one in (values.items() if isinstance(values, dict) else ())
        }
        return cls._made(text, str(found.get("template", text)), inner)


def to_json(value: Any) -> Any:
    """`value` as JSON holds it: every message in it as `{"message": its English text, "template", "values"}`."""
    if isinstance(value, Message):
        values = {name: to_json(one) if _is_json(one) else str(one) for name, one in value.values.items()}
        return {"message": str(value), "template": value.template, "values": values}
    if isinstance(value, dict):
        return {key: to_json(one) for key, one in value.items()}
    return [to_json(one) for one in value] if isinstance(value, (list, tuple)) else value


def listed(items: Sequence[object], between: str = ", ") -> Message:
    """`a, b, c`."""
    values = {f"item{number}": item for number, item in enumerate(items, 1)}
    template = between.join(f"{{{name}}}" for name in values)
    return Message(template, **values)


def with_and(items: Sequence[object]) -> Message:
    """`a and b`, `a and b and c`."""
    told = listed(items[:1])
    for item in items[1:]:
        told = Message("{some} and {one}", some=told, one=item)
    return told


def with_or(items: Sequence[object]) -> Message:
    """`a or b`, `a or b or c`."""
    told = listed(items[:1])
    for item in items[1:]:
        told = Message("{some} or {one}", some=told, one=item)
    return told


def first_of(items: Sequence[object], most: int = 3) -> Message:
    """`a, b, c and 2 more`."""
    some = listed(items[:most])
    return Message("{some} and {count} more", some=some, count=len(items) - most) if items[most:] else some


def in_language(text: str, language: str) -> str:
    """`text` in `language` (`ko`; `en` is what it is) where it is a message that the catalogue has, else in English.

    The template of a message that was read from a file is only looked up: nothing that a file says is formatted.
    """
    return _told(text, language, _DEEPEST) if language != "en" else str(text)


def _told(text: str, language: str, deeper: int) -> str:
    if not isinstance(text, Message) or not deeper:
        return str(text)
    values = {
        name: _told(value, language, deeper - 1) if isinstance(value, Message) else value
        for name, value in text.values.items()
    }
    names = _FIELD.findall(text.template)
    if not _WORD.search(_FIELD.sub("", text.template)) and len(names) == len(set(names)):  # a list
        return _FIELD.sub(lambda field: str(values.get(field[1], "")), text.template)
    translation = catalogue(language).get(text.template)
    try:
        return text if translation is None else with_particles(translation.format(**values))
    except (LookupError, ValueError, TypeError):  # values from a file that are not what the template has
        return str(text)


@cache
def catalogue(language: str) -> dict[str, str]:
    """The translations of `whet/locale/LANGUAGE.po`, by template."""
    file = Path(__file__).parent / "locale" / f"{language}.po"
    entries = read_po(file.read_text(encoding="utf-8"))
    return {template: translation for template, translation, flags in entries if template and "fuzzy" not in flags}


def read_po(text: str) -> Iterator[tuple[str, str, str]]:
    """`(msgid, msgstr, flags)` of every entry of a .po file, its header (whose msgid is empty) too."""
    for block in text.split("\n\n"):
        parts = {"msgid": "", "msgstr": ""}
        flags = key = ""
        for line in block.splitlines():
            if line.startswith("#"):
                flags += line[2:] if line.startswith("#,") else ""
                continue
            word, _, quoted = line.rpartition('"')[0].partition('"')
            key = word.strip() or key
            parts[key] += json.loads(f'"{quoted}"')
        if key:
            yield parts["msgid"], parts["msgstr"], flags


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, list, tuple, dict)) or _is_finite(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


_FIELD = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[^\W\d_]")
