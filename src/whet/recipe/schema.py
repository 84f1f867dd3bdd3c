"""Recipes: steps that are done one after another, each checked by its gate and undone where it fails, as YAML.

    version: 1
    model: organisation/model        # optional, like out: the command line may name them
    text: corpus.jsonl               # divided before the first step: what calibrates, what gates, what reports
    skills: questions.jsonl
    steps:
      - transform: {kind: awq, scheme: int4-g64}
        gate: {kl: 0.001}
        on_fail: skip
      - quantize: {quality: 0.98, for: transformers}
        gate: {retention: 0.97, retention.arithmetic: 0.98}
        on_fail: {try: [{quality: 0.99}, {scheme: W8A16}]}

Keys of a step are its options (`whet.steps.options`); paths are relative to the current folder. `whet run` does all
steps; `whet compress --recipe` takes a recipe whose only step is quantize.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, create_model, model_validator

from whet.errors import UsageError, did_you_mean
from whet.events import OnEvent, ignore, note_event
from whet.messages import Message, with_and
from whet.steps.options import CHAT, FIELD, SKIP_BAD, STEPS, TARGET, Options, Quantize
from whet.strict import PlainLoader, Strict, checked

PRESETS = ("w8", "w4", "balanced", "smallest")
_MOST = 1 << 20  # bytes of a recipe
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class QuantizeStep(Quantize):
    """The options of `whet compress`, or a preset and what goes over it."""

    preset: str | None = Field(default=None, description=f"What is not said here: {', '.join(PRESETS)}")


class Try(Strict):
    """Other options to try, each over the step's own, until the gate holds."""

    tries: list[dict[str, Any]] = Field(alias="try", min_length=1)


class StepBase(Strict):
    """One step: one of the crafts with its options, and what must hold for it to stand."""

    gate: dict[str, float] = Field(default_factory=dict, description="What must hold, by figure: {retention: 0.97}")
    on_fail: Literal["stop", "skip", "halve"] | Try = Field(
        default="stop",
        description="Where the gate fails: stop (the default), skip the step, halve it, or {try: [other options, ...]}",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in STEPS if getattr(self, name, None) is not None]
        if len(given) != 1:
            has = with_and(given) if given else Message("none")
            raise ValueError(Message("a step is one of {known}; this one has {has}", known=", ".join(STEPS), has=has))
        return self

    @property
    def craft(self) -> str:
        """Which step it is."""
        return next(name for name in STEPS if getattr(self, name) is not None)

    @property
    def options(self) -> Options:
        """Its options."""
        options: Options = getattr(self, self.craft)
        return options


_OPTIONS: dict[str, type[Options]] = {**STEPS, "quantize": QuantizeStep}
Step: Any = create_model(
    "Step",
    __base__=StepBase,
    **{name: (kind | None, Field(default=None, description=kind.__doc__)) for name, kind in _OPTIONS.items()},  # type: ignore[call-overload]
)


class Recipe(Strict):
    """A recipe."""

    version: Literal[1]
    model: str | None = Field(default=None, description="A model folder, or a name on the hub")
    out: str | None = Field(default=None, description="The folder to write")
    seed: int = Field(default=0, ge=0)
    text: str | None = Field(default=None, description="Text of every step, gate and report, divided before the first")
    skills: str | None = Field(default=None, description="Questions of budgets, gates and the report, divided too")
    files: dict[str, str] = Field(
        default_factory=dict, description="Material of aspects that gates and the report measure, by aspect"
    )
    field: str = Field(default="text", description=FIELD)
    chat: bool = Field(default=False, description=CHAT)
    skip_bad: bool = Field(default=False, description=SKIP_BAD)
    steps: list[Step] = Field(min_length=1)


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
    whole = read_recipe(recipe)
    if [step.craft for step in whole.steps] != ["quantize"] or whole.steps[0].gate:
        raise UsageError(
            "{source} has steps or gates beside one quantize, which whet compress does not do. Run it: whet run "
            "{source}",
            source=source,
        )
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
    for name in ("text", "skills", "field", "chat", "skip_bad"):
        if name in whole.model_fields_set and name not in said:
            said[name] = getattr(whole, name)
    said = _over(said, given)
    top = {name: value for name in ("model", "out", "seed") if (value := getattr(whole, name)) is not None}
    arguments = {**top, **_over(below, said)}
    if arguments.get("embed") is not None and "embed" not in said:
        from whet.targets import find_target  # not at the top: a wrong recipe is told before anything slow is imported

        target = find_target(arguments.get("target") or TARGET)
        if not target.embedding:
            arguments["embed"] = None
            message = Message(
                "{target} loads no quantized embedding or head: {preset} leaves them as they are",
                target=target.name,
                preset=preset,
            )
            on_event(note_event(message))
    return arguments


def step_options(step: Any, other: Mapping[str, Any], source: str) -> Options:
    """The options of a step, a preset under them and `other` (as a recipe spells them) over them."""
    kind = _OPTIONS[step.craft]
    if step.craft != "quantize":
        return checked(kind, step.options.model_dump(exclude_unset=True, by_alias=True) | dict(other), source)
    over = checked(kind, dict(other), source).model_dump(exclude_unset=True)
    said = _over(step.options.model_dump(exclude_unset=True), over)
    preset = said.pop("preset", None)
    below = {} if preset is None else _preset(preset, source)
    return Quantize.of(source, **_over(below, said))


def read_recipe(recipe: str | Path | Mapping[str, Any]) -> Recipe:
    """A recipe from a preset's name, a path, or what such a file holds. Raises UsageError naming file, key, remedy."""
    return _read(recipe, Message("the recipe") if isinstance(recipe, Mapping) else str(recipe))


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
    if path.stat().st_size > _MOST:
        raise UsageError("{path} has more than {most:,} bytes: it is no recipe.", path=path, most=_MOST)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark, what = error.problem_mark, f"{error.context} {error.problem}" if error.context else error.problem
        place: object = path
        if mark:
            line, column = mark.line + 1, mark.column + 1
            place = Message("{path}, line {line}, column {column}", path=path, line=line, column=column)
        raise UsageError("{place}: {what}. Mend that place.", place=place, what=what) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of dates, numbers, bytes and depth
        raise UsageError(
            "{path} is not YAML in UTF-8 ({error}).", path=path, error=" ".join(str(error).split())
        ) from error


class _Loader(PlainLoader):
    """Refuses a key that stands twice, of which YAML's own reader silently keeps the last, and reads 2:4 as it stands:
    numbers to base 60 are no more since YAML 1.2."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [
            (tag, re.compile(f"(?!.*:){pattern.pattern}", pattern.flags) if tag in _NUMBERS else pattern)
            for tag, pattern in known
        ]
        for first, known in PlainLoader.yaml_implicit_resolvers.items()
    }


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key, _ in node.value:
        name = loader.construct_object(key)  # type: ignore[no-untyped-call]
        if isinstance(name, str) and name in seen:
            twice = Message("the key {name} is there twice", name=name)
            raise yaml.MarkedYAMLError(problem=twice, problem_mark=key.start_mark)
        seen.add(name if isinstance(name, str) else id(key))
    return PlainLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
