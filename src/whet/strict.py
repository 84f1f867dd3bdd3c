"""Documents that people edit (plans, recipes), checked by pydantic: every fault is one paragraph that names the key."""

from __future__ import annotations

import json
import typing
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from whet.errors import UsageError, did_you_mean
from whet.foreign import recognized
from whet.messages import Message


class Strict(BaseModel):
    """A part of a document: unknown keys are refused, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Note(Strict):
    """A message as documents hold it."""

    message: str
    template: str
    values: dict[str, Any] = Field(default_factory=dict)


M = TypeVar("M", bound=Strict)
_DEEPEST = 50  # levels of lists and mappings in brackets


def checked(kind: type[M], value: Any, source: str, *, by_name: bool = False) -> M:
    """`value` as a `kind`. source: what the document is called, for the message. by_name: keys are the names of
    attributes, as in Python, and not those that documents use.

    Raises UsageError with the path of the first key that is wrong, what is wrong, and the nearest right name.
    """
    try:
        return kind.model_validate(value, context={"document": not by_name}, by_name=by_name, by_alias=not by_name)
    except ValidationError as error:
        # A key that is not known often is the one that is missing, misspelt: it is told first. Of several types that a
        # key may have, the one that fitted farthest was meant.
        faults = error.errors(include_url=False)
        faults.sort(key=lambda fault: (fault["type"] != "extra_forbidden", -len(fault["loc"])))
        alike = sum(fault["type"] == faults[0]["type"] for fault in faults) - 1
        more = Message(" ({count} more like this.)", count=alike) if alike else ""
        raise UsageError(
            "{source}: {fault}{more}", source=source, fault=_told(kind, faults[0], by_name), more=more
        ) from error


class PlainLoader(yaml.SafeLoader):
    """YAML without anchors, aliases and merges, by which a few hundred bytes stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node. Raises MarkedYAMLError for one that has a name, or is one by name."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=Message("anchors (&) and aliases (*) are not read here"), problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)  # type: ignore[no-any-return]

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        """The next `[` or `{`. The scanner looks at all that are open with every token, of which there may be many."""
        if self.flow_level > _DEEPEST:  # type: ignore[has-type]
            raise yaml.MarkedYAMLError(problem=Message("lists are nested too deeply"), problem_mark=self.get_mark())
        super().fetch_flow_collection_start(TokenClass)


def parse_json(text: str | bytes, **more: Any) -> Any:
    """As `json.loads`. Raises JSONDecodeError, too, for what is nested so deeply that writing or copying it fails."""
    try:
        value = json.loads(text, **more)
    except RecursionError as error:
        raise json.JSONDecodeError(Message("lists are nested too deeply"), "", 0) from error
    level = [value]
    for _ in range(_DEEPEST):
        level = [one for many in level for one in _inside(many)]
        if not level:
            return value
    raise json.JSONDecodeError(Message("lists are nested too deeply"), "", 0)


def _inside(value: Any) -> list[Any]:
    """The lists and mappings in a list or mapping."""
    some = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for one in some if isinstance(one, (dict, list))]


def _told(kind: type[BaseModel], fault: Any, by_name: bool) -> Message:
    at, what = tuple(fault["loc"]), recognized(f"{fault['msg'][:1].lower()}{fault['msg'][1:]}".rstrip("."))
    if fault["type"] == "value_error":
        what = fault["ctx"]["error"].args[0]  # what a validator of whet raised
    # of several types that a key may have, the one that was tried is no part of the path
    at = tuple(key for i, key in enumerate(at) if not (i and _names_type(key)))
    path = _path(at)
    if fault["type"] == "extra_forbidden":
        known = list(kind.model_fields) if by_name else _keys(kind, at[:-1])
        near = did_you_mean(str(at[-1]), known)
        return Message(
            "the key {path} is not known.{near} Keys here: {known}.", path=path, near=near, known=", ".join(known)
        )
    if fault["type"] == "missing":
        return Message("the key {path} is missing.", path=path)
    if not at:
        return Message("{what}.", what=what)
    if fault["type"] == "value_error":
        return Message("{path}: {what}.", path=path, what=what)
    return Message("{path} is {value!r}: {what}.", path=path, value=fault["input"], what=what)


def _names_type(key: str | int) -> bool:
    """Whether pydantic names a type by this part of a path."""
    kinds = ("str", "int", "float", *(kind.__name__ for kind in Strict.__subclasses__()))
    return key in kinds or str(key).startswith("literal[")


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


def with_numbers(value: Any) -> Any:
    """`value` with the numbers that transformers writes as tables, since JSON has none for them: `{"__float__":
    "Infinity"}`."""
    if isinstance(value, dict):
        said = value.get("__float__") if len(value) == 1 else None
        if said in ("Infinity", "-Infinity", "NaN"):
            return float(said)
        return {key: with_numbers(item) for key, item in value.items()}
    return [with_numbers(item) for item in value] if isinstance(value, list) else value
