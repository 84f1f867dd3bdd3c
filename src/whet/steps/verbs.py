"""The options of the Python verbs and the command line: those of a step or two, and what every verb runs with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import Field

from whet.steps.options import (
    CHAT,
    DEVICES,
    FIELD,
    SKIP_BAD,
    Budget,
    Distill,
    Dynamic,
    Heal,
    Masks,
    Merge,
    Opening,
    Options,
    Prune,
    Quantize,
    Runtime,
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


class DynamicVerb(Machine, Dynamic):
    """Options of `dynamic`."""


class TuneVerb(Machine, Tune):
    """Options of `tune`."""


class HealVerb(Machine, Heal):
    """Options of `heal`."""


class MergeVerb(Machine, Merge):
    """Options of `merge`."""


class Compress(Machine, Quantize):
    """Options of `compress`."""


class Plan(Machine, Opening, Text, Runtime, Solver, Budget):
    """Options of `plan`."""


class Inspect(Machine, Target, Opening, Text):
    """Options of `inspect`."""

    skills: Source | None = Field(
        default=None, description="A .jsonl file of questions: shows which block carries which skill"
    )
    spectra: bool = Field(default=True, description="Also measure how many directions each output uses")


class Choose(Machine, Text, Target, Solver):
    """Options of `choose`."""

    budget: Annotated[str | int | None, Shown(metavar="SIZE")] = Field(
        default=None, description="The most bytes of the weight files of each: 2GB, 1.5GiB, or 25% of the largest"
    )
    skills: Source | None = Field(
        default=None, description="A .jsonl file of questions that judge; without it the text does, in bits a byte"
    )


class Curate(Machine):
    """Options of `curate`."""

    field: str = Field(default="text", description=FIELD)
    chat: bool = Field(default=False, description=CHAT)
    skip_bad: bool = Field(default=False, description=SKIP_BAD)
    languages: str | None = Field(
        default=None, description="Keep documents of these languages alone: codes with commas between, such as en,ko"
    )
    quota: Annotated[str | None, Shown(metavar="LANGUAGE=SHARE")] = Field(
        default=None, description="Shares of languages in what is kept, by bytes: en=60%,ko=40%"
    )
    min_length: int | None = Field(default=None, ge=1, description="The fewest letters of a document that is kept")
    max_length: int | None = Field(default=None, ge=1, description="The most letters of a document that is kept")
    keep: Source | None = Field(
        default=None,
        description="A file of documents listed by hand: they are added, and nothing but a leak takes them",
    )
    redact: bool = Field(
        default=False,
        description="Mask e-mail addresses, phone numbers, resident registration numbers and card numbers",
    )
    model: Source | None = Field(
        default=None, description="The original's folder: it reads documents for --perplexity and --lighter"
    )
    perplexity: Annotated[str | None, Shown(metavar="LOW-HIGH")] = Field(
        default=None, description="Keep what is between these quantiles of the original's perplexity: 5%-95%"
    )
    lighter: Source | None = Field(
        default=None, description="The lighter model's folder: documents where it differs most from MODEL weigh more"
    )
    hard: Annotated[str | None, Shown(default="10%")] = Field(
        default=None, description="With --lighter: the share of documents that weigh more"
    )
    hard_weight: Annotated[float | None, Shown(default="2")] = Field(
        default=None, gt=0, description="With --lighter: what they weigh; others weigh 1"
    )


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
