"""Whether two models are served with the same tokenizer, end tokens, chat template and settings.

No test on live answers finds these soon: what ends an answer, or how a conversation is put to the model, changes what
users get, and both models are compared on the same token ids.
"""

from __future__ import annotations

import json
from typing import Any

from whet.errors import UsageError
from whet.messages import Message

_LETTERS = 60  # of a value that is shown
_SHOWN = 4  # differences
_CALLED = {
    "context": Message("context length"),
    "window": Message("sliding window"),
    "rope": Message("rotary positions"),
}


def apart(original: dict[str, Any] | None, lighter: dict[str, Any] | None) -> list[tuple[Message, Any, Any]]:
    """What differs, with what either has: of what the workers told (`measure.beside.told_of`), None where one is a
    server that tells nothing."""
    if original is None or lighter is None:
        return []
    mine, theirs = original["settings"], lighter["settings"]
    names = dict.fromkeys([*mine, *theirs])
    if not (original["whole"] and lighter["whole"]):
        names = {name: None for name in names if name in mine and name in theirs}
    found: list[tuple[Message, Any, Any]] = [
        (_CALLED.get(name, Message("{name}", name=name)), mine.get(name), theirs.get(name))
        for name in names
        if mine.get(name) != theirs.get(name)
    ]
    ends = set(original["ends"]), set(lighter["ends"])
    if ends[0] != ends[1] and not (lighter["by_name"] and ends[0] <= ends[1]):
        found.append((Message("tokens that end a text"), original["ends"], lighter["ends"]))
    if original["texts"] != lighter["texts"]:
        pairs = zip(original["texts"], lighter["texts"], strict=True)
        found.append((Message("tokens of the same text"), *next(pair for pair in pairs if pair[0] != pair[1])))
    if original["chat"] != lighter["chat"]:
        found.append((Message("chat template"), *(told["chat"] and told["chat"][0] for told in (original, lighter))))
    if lost := sorted(set(lighter["zeros"]) - set(original["zeros"])):
        found.append((Message("matrices of zeros ({count})", count=len(lost)), None, lost))
    return found


def must_be_alike(model: str, found: list[tuple[Message, Any, Any]]) -> None:
    """Raises UsageError for what `apart` found."""
    if not found:
        return
    parts = [
        str(Message("{what}: {lighter}, the original's {original}", what=what, original=_shown(a), lighter=_shown(b)))
        for what, a, b in found[:_SHOWN]
    ]
    raise UsageError(
        "{model} would be served with something else than the original beside its weights. {parts}. Copy those files "
        "from the original's folder, or say --allow-differences if it is meant.",
        model=model,
        parts="; ".join(parts) + (" …" if found[_SHOWN:] else ""),
    )


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…"
