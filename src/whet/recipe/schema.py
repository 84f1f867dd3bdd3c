"""Recipes: what `compress` is asked for, as YAML that is read, checked, shipped as presets and saved with the result.

    version: 1
    model: organisation/model        # optional, like out: the command line may name them
    steps:
      - quantize: {quality: 0.98, for: transformers, text: corpus.txt}

The keys of `quantize` are the options of `whet compress`; paths in them are relative to the current folder, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from whet.errors import UsageError, did_you_mean
from whet.events import OnEvent, ignore, note_event
from whet.messages import Message
from whet.steps.decide import TARGET
from whet.steps.options import Quantize
from whet.strict import Strict, checked
from whet.targets import find_target

PRESETS = ("w8", "w4", "balanced", "smallest")


class QuantizeStep(Quantize):
    """The options of `whet compress`, or a preset and what goes over it."""

    preset: str | None = Field(default=None, description=f"What is not said here: {', '.join(PRESETS)}")


class Step(Strict):
    """One thing that is done to the model."""

    quantize: QuantizeStep


class Recipe(Strict):
    """A recipe."""

    version: Literal[1]
    model: str | None = Field(default=None, description="A model folder, or a name on the hub")
    out: str | None = Field(default=None, description="The folder to write")
    seed: int = Field(default=0, ge=0)
    steps: list[Step] = Field(min_length=1)

    @field_validator("steps")
    @classmethod
    def _once(cls, steps: list[Step]) -> list[Step]:
        if len(steps) > 1:
            raise ValueError(
                Message(
                    "steps[1].quantize would quantize what steps[0].quantize has quantized already, which loses twice. "
                    "Leave one of the two"
                )
            )
        return steps


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def recipe_arguments(
    recipe: str | Path | Mapping[str, Any], given: Mapping[str, Any] | None = None, on_event: OnEvent = ignore
) -> dict[str, Any]:
    """What `compress` is called with for a recipe: a preset's name, a path, or what such a file holds.

    given: arguments that override it, by their names in Python; one that says what to do (a scheme, a plan, a budget)
    takes the place of everything in the recipe that does. Raises UsageError naming the file, the key and the remedy.
    """
    given = dict(given or {})
    source = Message("the recipe") if isinstance(recipe, Mapping) else str(recipe)
    whole = _read(recipe, source)
    said = whole.steps[0].quantize.model_dump(exclude_unset=True)
    preset, below = said.pop("preset", None), {}
    if isinstance(recipe, str) and recipe in PRESETS:
        preset, below, said = recipe, said, {}
    elif preset is not None:
        below = _preset(preset, Message("{source}, steps[0].quantize.preset", source=source))
    try:
        Quantize.model_construct(**said).check()
    except UsageError as error:
        raise UsageError("{source}, steps[0].quantize: {error}", source=source, error=error.message) from error
    said = _over(said, given)
    top = {name: value for name in ("model", "out", "seed") if (value := getattr(whole, name)) is not None}
    arguments = {**top, **_over(below, said)}
    target = find_target(arguments.get("target") or TARGET)
    if arguments.get("embed") is not None and "embed" not in said and not target.embedding:
        arguments["embed"] = None
        message = Message(
            "{target} loads no quantized embedding or head: {preset} leaves them as they are",
            target=target.name,
            preset=preset,
        )
        on_event(note_event(message))
    return arguments


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`; where `above` says what to do, `below` says nothing of it any more."""
    way = next((name for name in Quantize.WAYS if above.get(name) is not None), None)
    gone = set() if way is None else {*Quantize.WAYS, *Quantize.WAYS[way]}
    return {name: value for name, value in below.items() if name not in gone} | dict(above)


def _preset(name: str, source: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise UsageError(
            "{source}: there is no preset {name!r}.{near} Presets: {known}.",
            source=source,
            name=name,
            near=did_you_mean(name, PRESETS),
            known=", ".join(PRESETS),
        )
    return _read(name, name).steps[0].quantize.model_dump(exclude_unset=True)


def _read(recipe: str | Path | Mapping[str, Any], source: str) -> Recipe:
    value = recipe if isinstance(recipe, Mapping) else _load(recipe)
    if not isinstance(value, Mapping):
        raise UsageError(
            "{source} is not a recipe: it holds no keys. It begins with version: 1 and has steps.", source=source
        )
    if "version" in value and value["version"] != 1:
        raise UsageError(
            "{source} has version {version!r}; this whet reads version 1. Update whet.",
            source=source,
            version=value["version"],
        )
    return checked(Recipe, value, source)


def _load(recipe: str | Path) -> Any:
    if str(recipe) in PRESETS:
        file = resources.files("whet.recipe").joinpath("presets", f"{recipe}.yaml")
        return yaml.load(file.read_text(encoding="utf-8"), _Loader)
    path = Path(recipe)
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(str(recipe), PRESETS) or did_you_mean(path.name, beside)
        raise UsageError(
            "{recipe} is neither a file nor a preset.{near} Presets: {known}.",
            recipe=recipe,
            near=near,
            known=", ".join(PRESETS),
        )
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark, what = error.problem_mark, f"{error.context} {error.problem}" if error.context else error.problem
        place: object = path
        if mark:
            line, column = mark.line + 1, mark.column + 1
            place = Message("{path}, line {line}, column {column}", path=path, line=line, column=column)
        raise UsageError("{place}: {what}. Mend that place.", place=place, what=what) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            "{path} is not YAML in UTF-8 ({error}).", path=path, error=" ".join(str(error).split())
        ) from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's own reader silently keeps the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key, _ in node.value:
        name = loader.construct_object(key)  # type: ignore[no-untyped-call]
        if isinstance(name, str) and name in seen:
            twice = Message("the key {name} is there twice", name=name)
            raise yaml.MarkedYAMLError(problem=twice, problem_mark=key.start_mark)
        seen.add(name if isinstance(name, str) else id(key))
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
