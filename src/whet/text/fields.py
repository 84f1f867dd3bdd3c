"""What of a record is text: a field, or a conversation in one of the forms that data sets have.

Conversations are lists of turns, `{"role", "content"}` (OpenAI) or `{"from", "value"}` (ShareGPT), in a field of their
own; or one question and its answer, as `instruction`, `input` and `output` (Alpaca) or `prompt` and `completion`. They
are written with the model's chat template. Of a model that has none, a question is followed by its answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from whet.errors import UsageError, did_you_mean
from whet.messages import Message, with_and
from whet.text.places import Where, in_words

TEXT = "text"  # the field, unless one is named
TURNS = ("messages", "conversations", "conversation")
ASKED, ANSWERED = ("prompt", "question"), ("completion", "response", "answer")
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
_LONG = 40  # letters that are text also without a space between, as in Chinese

Kind = Literal["text", "turns", "alpaca", "pair"]


@dataclass(frozen=True)
class Form:
    """How a record holds text: `kind`, the fields it is in, and whether they were found and not named."""

    kind: Kind
    fields: tuple[str, ...]
    guessed: bool = False

    @property
    def asks(self) -> bool:
        """Whether records are conversations."""
        return self.kind != "text"


def form_of(records: Sequence[Mapping[str, Any]], field: str, chat: bool, where: Where) -> Form:
    """How these records, the first of a source, hold their text.

    field: the one that was named, or `text`, where that is missing or conversations are asked for (`chat`) also what
    else there is. Raises UsageError, with `where`, where there is no telling.
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    if field in names and not (chat and field == TEXT):
        return Form("turns" if _has_turns(records, field) else "text", (field,))
    if field == TEXT:
        for name in (*TURNS, TEXT):
            if name in names and _has_turns(records, name):
                return Form("turns", (name,), guessed=name != "messages")
        if {"instruction", "output"} <= {*names}:
            more = [name for name in ("system", "input") if name in names]
            return Form("alpaca", ("instruction", "output", *more), guessed=True)
        for pair in itertools.product(ASKED, ANSWERED):
            if {*pair} <= {*names}:
                return Form("pair", pair, guessed=True)
        found = [name for name in names if any(_is_text(record.get(name)) for record in records)]
        if not chat and len(found) == 1:
            return Form("text", (found[0],), guessed=True)
        field = TURNS[0] if chat else TEXT
        if field in names:  # said of its value
            return Form("turns", (field,))
    raise missing(where, field, names)


def missing(where: Where, field: str, names: Sequence[str]) -> UsageError:
    """The error of a field that is not there."""
    return UsageError(
        "{where}: there is no field {field}; the fields are: {known}.{near} Name the one that holds the text "
        "(--field).",
        where=in_words(where),
        field=field,
        known=", ".join(names) or Message("none"),
        near=did_you_mean(field, names),
    )


def text_of(record: Mapping[str, Any], form: Form, where: Where) -> str:
    """The text of a record that is written without a chat template. Raises UsageError, with `where`, for none."""
    parts = []
    for name in form.fields if form.kind == "text" else _in_order(form):
        needed = name in form.fields[:2]
        if needed and name not in record:
            raise missing(where, name, list(record))
        if not needed and not isinstance(record.get(name), str):
            continue
        parts.append(_text(record, name, where))
    if form.kind == "pair":
        between = "" if parts[0][-1:].isspace() or parts[1][:1].isspace() else "\n"
        return between.join(parts)
    return "\n\n".join(part for part in parts if part.strip()) if form.kind == "alpaca" else parts[0]


def turns_of(record: Mapping[str, Any], form: Form, where: Where) -> Any:
    """The turns of a record, as chat templates take them. Raises UsageError, with `where`, for a field that is not
    there; what is wrong with turns is told by whoever writes them."""
    for name in form.fields[: 1 if form.kind == "turns" else 2]:
        if name not in record:
            raise missing(where, name, list(record))
    if form.kind == "turns":
        return _turns(record[form.fields[0]])
    question, answer = form.fields[:2]
    if isinstance(record[question], list) and isinstance(record[answer], list):
        return _turns(record[question] + record[answer])
    asked = _text(record, question, where)
    more = record.get("input") if form.kind == "alpaca" else None
    if isinstance(more, str) and more.strip():
        asked = f"{asked}\n\n{more}"
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": _text(record, answer, where)}]
    system = record.get("system") if form.kind == "alpaca" else None
    if isinstance(system, str) and system.strip():
        turns.insert(0, {"role": "system", "content": system})
    return turns


def told(form: Form, source: str, written: bool) -> Message | None:
    """What a person should know of a form that was found and not named. written: with the chat template."""
    fields = with_and(form.fields)
    if form.asks and written:
        return Message(
            "{source} holds conversations ({fields}): they are written with the model's chat template",
            source=source,
            fields=fields,
        )
    if form.asks:
        return Message(
            "{source} holds questions and answers ({fields}): the model has no chat template, so they are written one "
            "behind the other",
            source=source,
            fields=fields,
        )
    if form.guessed:
        return Message(
            "{source} has no field text: {field} is read, the only one that holds text", source=source, field=fields
        )
    return None


def _in_order(form: Form) -> Sequence[str]:
    """Fields in the order in which they are read."""
    order = ("system", "instruction", "input", "output") if form.kind == "alpaca" else form.fields
    return [name for name in order if name in form.fields]


def _text(record: Mapping[str, Any], name: str, where: Where) -> str:
    value = record[name]
    if not isinstance(value, str):
        hint = Message(" To read conversations, ask for chat.") if isinstance(value, list) else ""
        raise UsageError(
            "{where}: field {field} holds {kind}, not text.{hint} Name a field of text, or mend the record.",
            where=in_words(where),
            field=name,
            kind=type(value).__name__,
            hint=hint,
        )
    return value


def _has_turns(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether the first value that is there is a list of turns."""
    value = next((record[name] for record in records if record.get(name) is not None), None)
    if not isinstance(value, list) or not value or not isinstance(value[0], Mapping):
        return False
    return bool({"role", "from"} & {*value[0]})


def _turns(value: Any) -> Any:
    """Turns as `{"role", "content"}`."""
    if not isinstance(value, list):
        return value
    return [_turn(turn) for turn in value]


def _turn(turn: Any) -> Any:
    if isinstance(turn, Mapping) and "role" not in turn and {"from", "value"} <= {*turn}:
        role = turn["from"]
        return {"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": turn["value"]}
    return turn


def _is_text(value: Any) -> bool:
    """Whether a value is words, not a number, a name or a mark."""
    return isinstance(value, str) and (len(value.split()) > 1 or len(value) >= _LONG)
