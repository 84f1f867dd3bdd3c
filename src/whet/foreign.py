"""What typer and pydantic say. They hand over finished English sentences, so these are known by their wording."""

from __future__ import annotations

import re
from functools import cache

from whet.messages import Message

SENTENCES = (
    # typer
    "No such command {name}.",
    "No such command {name}. Did you mean {names}?",
    "No such option: {name}.",
    "Missing command.",
    "Missing argument {name}.",
    "Missing option {name}.",
    "Got unexpected extra argument(s) ({names}).",
    "Option {name} requires an argument.",
    "Option {name} requires {count} arguments.",
    "Option {name} does not take a value.",
    "Invalid value for {name}: {what}.",
    "Invalid value for {name}: input should be {what}.",
    "value error, {value} is not one of {known}",
    # pydantic
    "input should be {what}",
    "list should have at least {least} item after validation, not {count}",
    "keys should be strings",
    "a valid string",
    "a valid integer",
    "a valid integer, unable to parse string as an integer",
    "a valid integer, got a number with a fractional part",
    "a valid number",
    "a valid number, unable to parse string as a number",
    "a finite number",
    "a valid boolean",
    "a valid boolean, unable to interpret input",
    "a valid list",
    "a valid dictionary",
    "a valid dictionary or instance of {name}",
    "greater than or equal to {least}",
    "less than or equal to {most}",
    "'{first}' or '{last}'",
)


def recognized(text: str) -> str:
    """`text` as a message where it is one of SENTENCES but for capitals, what it names as well; else as it is."""
    for template, pattern in _patterns():
        if found := pattern.fullmatch(text):
            values = {name: recognized(value) for name, value in found.groupdict().items()}
            return Message.read({"message": text, "template": template, "values": values})
    return text


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Every sentence as a pattern, those with the most words of their own first."""
    fields = re.compile(r"\{(\w+)\}")
    ordered = sorted(SENTENCES, key=lambda template: -len(fields.sub("", template)))
    return [(one, re.compile(fields.sub(r"(?P<\1>.+?)", re.sub(r"([.?()])", r"\\\1", one)), re.I)) for one in ordered]
