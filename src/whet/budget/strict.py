"""Documents that people edit (plans, recipes), checked by pydantic: every fault is one paragraph that names the key."""

from __future__ import annotations

import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from whet.errors import UsageError, did_you_mean


class Strict(BaseModel):
    """A part of a document: unknown keys are refused, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


M = TypeVar("M", bound=Strict)


def checked(kind: type[M], value: Any, source: str) -> M:
    """`value` as a `kind`. source: what the document is called, for the message.

    Raises UsageError with the path of the first key that is wrong, what is wrong, and the nearest right name.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        # a key that is not known often is the one that is missing, misspelt: it is told first
        faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
        alike = sum(fault["type"] == faults[0]["type"] for fault in faults) - 1
        more = f" ({alike} more like this.)" if alike else ""
        raise UsageError(
            "{source}: {sentence}{more}", source=source, sentence=_sentence(kind, faults[0]), more=more
        ) from error


def _sentence(kind: type[BaseModel], fault: Any) -> str:
    at, what = tuple(fault["loc"]), fault["msg"].removeprefix("Value error, ").rstrip(".")
    if len(at) > 1 and at[-1] in ("str", "int", "float"):
        at = at[:-1]  # one of several types that the key may have
    path = _path(at)
    if fault["type"] == "extra_forbidden":
        known = _keys(kind, at[:-1])
        return f"the key {path} is not known.{did_you_mean(str(at[-1]), known)} Keys here: {', '.join(known)}."
    if fault["type"] == "missing":
        return f"the key {path} is missing."
    if not at:
        return f"{what[:1].lower()}{what[1:]}."
    if fault["type"] == "value_error":
        return f"{path}: {what}."
    return f"{path} is {fault['input']!r}: {what[:1].lower()}{what[1:]}."


def _path(at: tuple[str | int, ...]) -> str:
    """`steps[0].quantize.scheme`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in at).lstrip(".")


def _keys(kind: type[BaseModel], at: tuple[str | int, ...]) -> list[str]:
    """The keys that the document knows at a path."""
    for key in at:
        field = next((f for name, f in kind.model_fields.items() if key in (name, f.alias)), None)
        inner = _inner(field.annotation) if field else None
        kind = inner or kind
    return [field.alias or name for name, field in kind.model_fields.items()]


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The part of a document inside `X`, `X | None`, `list[X]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in typing.get_args(annotation) if (found := _inner(inner))), None)
