"""The options of the Python verbs and the command line: those of a step or two, and what every verb runs with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import Field

from whet.steps.options import (
    DEVICES,
    Budget,
    Distill,
    Masks,
    Merge,
    Options,
    Prune,
    Quantize,
    Shown,
    Slice,
    Solver,
    Source,
    Target,
    Text,
    Tune,
)


class Device(Options):
    """Where a verb computes."""

    device: Annotated[str, Shown(among=DEVICES)] = Field(default="auto", description="auto, cpu or cuda")


class Machine(Device):
    """What a verb runs with, whatever it does."""

    seed: int = Field(default=0, ge=0, description="Random seed")


class MasksVerb(Machine, Masks):
    """Options of `masks`."""


class PruneVerb(Machine, Prune):
    """Options of `prune`."""


class DistillVerb(Machine, Distill):
    """Options of `distill`."""


class SliceVerb(Device, Slice):
    """Options of `slice`."""


class TuneVerb(Machine, Tune):
    """Options of `tune`."""


class MergeVerb(Machine, Merge):
    """Options of `merge`."""


class Compress(Machine, Quantize):
    """Options of `compress`."""


class Plan(Machine, Text, Target, Solver, Budget):
    """Options of `plan`."""


class Inspect(Machine, Target, Text):
    """Options of `inspect`."""

    skills: Source | None = Field(
        default=None, description="A .jsonl file of questions: shows which block carries which skill"
    )
    spectra: bool = Field(default=True, description="Also measure how many directions each output uses")


V = TypeVar("V", bound=Callable[..., Any])


def takes(kind: type[Options]) -> Callable[[V], V]:
    """A verb whose `**options` are those of `kind`: they stand in its signature and in its docstring."""

    def with_options(verb: V) -> V:
        signature = inspect.signature(verb)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        named = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
            for name, field in kind.model_fields.items()
        ]
        positional = [p for p in own if p.kind is not p.KEYWORD_ONLY]
        rest = [p for p in own if p.kind is p.KEYWORD_ONLY]
        verb.__signature__ = signature.replace(parameters=[*positional, *named, *rest])  # type: ignore[attr-defined]
        lines = [f"        {name}: {field.description}." for name, field in kind.model_fields.items()]
        verb.__doc__ = "\n".join([(verb.__doc__ or "").rstrip(), "", "    Options:", *lines, "    "])
        return verb

    return with_options
