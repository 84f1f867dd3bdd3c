"""Plans: which part takes which scheme, as JSON that is printed, edited by hand, checked and replayed.

`schemes` is what a plan says; everything else tells where it came from and what it promises. Promises hold for the
schemes they were made for: `predicted.of` is their hash, and after an edit predictions are dropped, with a note.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from whet.anatomy import Anatomy
from whet.budget.sizes import tables, tensor_bytes
from whet.checkpoint import TensorInfo, write_json
from whet.errors import UsageError, did_you_mean
from whet.grids import Grid, parse_scheme
from whet.messages import Message, first_of
from whet.strict import Note, Strict, checked, parse_json
from whet.targets import TARGETS, Storage, find_target, storage, stored_for, tied

KEEP = "keep"
_NAMED = 3  # addresses named in a message


class Model(Strict):
    """The original that the plan is for."""

    name: str = ""
    sha256: str | None = Field(default=None, description="Of the original, null binds the plan to no model")


class Budget(Strict):
    """What was asked for."""

    kind: Literal["bytes", "bits", "quality", "time", "none"] = "none"
    asked: str = ""
    bytes: int | None = Field(default=None, ge=0, description="Bytes of tensors that must not be exceeded")
    value: float = 0.0


class Predicted(Strict):
    """What the schemes are expected to give."""

    bytes: int = Field(ge=0)
    bits: float = Field(ge=0, description="Stored bits a parameter of the whole model")
    kl: float | None = Field(default=None, description="Nats a token")
    by_part: dict[str, float] = Field(default_factory=dict, description="Nats a token, by address")
    of: str | None = Field(default=None, description="SHA-256 of the schemes this was predicted for; whet fills it in")


class Measured(Strict):
    """One round of refinement: what a mix was predicted and measured to give."""

    bytes: int = Field(ge=0)
    tokens: int | None = Field(default=None, ge=0, description="Tokens that it was solved on")
    trial: bool = Field(default=False, description="Whether it was only tried: on a part of the text, without training")
    predicted_kl: float
    measured_kl: float
    top1: float
    retention: dict[str, float] = Field(default_factory=dict)


class Point(Strict):
    """A mix on the frontier, predicted."""

    bytes: int = Field(ge=0)
    bits: float = Field(ge=0)
    kl: float


class Gap(Strict):
    """How far the choice can be from the best at most: in predicted loss, or in bytes where a quality was asked for."""

    bound: float
    relative: float = Field(ge=0)
    among: Literal["all", "stock"] = Field(
        default="all", description="Among all mixes that the target holds, or those that stock transformers loads"
    )
    free: Point | None = Field(default=None, description="The best of all mixes, where it is better than this one")


class Uniform(Point):
    """One scheme throughout, predicted."""

    scheme: str
    embed: str


class Time(Strict):
    """What a decoded token takes in seconds, batch 1, by measurements of the machine that the plan was made on."""

    runtime: str
    threads: int = Field(ge=1)
    sixteen: float = Field(ge=0, description="Of the runtime's faster file in 16 bits")
    limit: float | None = Field(default=None, description="What was asked for, null where a quality was")
    predicted: float | None = Field(default=None, description="Of this plan")


class Choice(Strict):
    """What is done to a group."""

    schemes: str | dict[str, str] = Field(
        description="A scheme such as int4-g64, or keep; or one by pattern of addresses, the first that fits"
    )


class Group(Strict):
    """Parts that are decided on together."""

    addresses: list[str] = Field(min_length=1, description="Addresses, or patterns such as *.self_attn.*")
    choice: Choice


class Plan(Strict):
    """A plan for one model and one target. Edit `schemes`; everything else is optional and is checked or dropped."""

    editor_schema: str | None = Field(default=None, alias="$schema", exclude=True)
    format: Literal["whet.plan"]
    version: Literal[1]
    model: Model = Field(default_factory=Model)
    target: str = Field(description=f"The runtime that is to load the lighter model: {', '.join(TARGETS)}")
    solver: str = "gptq"
    budget: Budget = Field(default_factory=Budget)
    groups: dict[str, Group] = Field(
        default_factory=dict, description="Parts by group and what is done to them; `schemes` goes over it"
    )
    schemes: dict[str, str] = Field(
        default_factory=dict,
        description="Every linear of the blocks, embedding and head by address: a scheme such as int4-g64, or keep",
    )
    predicted: Predicted | None = None
    measured: list[Measured] = Field(default_factory=list)
    gap: Gap | None = None
    frontier: list[Point] = Field(default_factory=list)
    uniform: list[Uniform] = Field(default_factory=list)
    left_out: list[str | Note] = Field(default_factory=list)
    scorer: str | None = None
    text: dict[str, Any] | None = None
    notes: list[str | Note] = Field(default_factory=list)
    time: Time | None = None


@dataclass(frozen=True)
class CheckedPlan:
    """A plan that fits its model and target.

    plan: with stale predictions dropped. grids: by address, without what is kept. bytes: exact, by part, as
    `tensor_bytes` gives them. notes: what was dropped and why.
    """

    plan: dict[str, Any]
    grids: dict[str, Grid]
    storage: Storage
    bytes: dict[str, int]
    notes: list[Message]


def read_plan(plan: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """A plan from a file, or one at hand, with every key there is (`time` where it was counted). Raises UsageError that
    names what is wrong."""
    source = Message("the plan") if isinstance(plan, Mapping) else str(plan)
    value = plan if isinstance(plan, Mapping) else _load(Path(plan))
    if value.get("format") != "whet.plan":
        raise UsageError(
            '{source} is not a plan: a plan is a JSON object with "format": "whet.plan". Make one with whet plan.',
            source=source,
        )
    if value.get("version") != 1:
        raise UsageError(
            "{source} has version {version!r}; this whet reads version 1. Update whet.",
            source=source,
            version=value.get("version"),
        )
    whole = checked(Plan, value, source).model_dump()
    return {key: part for key, part in whole.items() if key != "time" or part is not None}


def write_plan(path: str | Path, plan: Mapping[str, Any]) -> None:
    """Check `plan` and write it atomically; a prediction is marked with the schemes it was made for."""
    whole = read_plan(plan)
    if whole["predicted"] is not None and whole["predicted"]["of"] is None:
        whole["predicted"]["of"] = schemes_hash(whole["schemes"])
    write_json(Path(path), whole)


def plan_schema() -> dict[str, Any]:
    """The JSON Schema of a plan, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Plan.model_json_schema()}


def schemes_hash(schemes: Mapping[str, str]) -> str:
    """SHA-256 of schemes by address, in whatever order they stand."""
    return hashlib.sha256(json.dumps(dict(schemes), sort_keys=True).encode()).hexdigest()


def plan_hash(plan: Mapping[str, Any]) -> str:
    """SHA-256 of everything a plan says. (What is not there of groups, tokens and trials leaves it as it was before
    there were any.)"""
    whole = read_plan(plan)
    said = {key: value for key, value in whole.items() if key != "groups" or value}
    said["measured"] = [
        {k: v for k, v in one.items() if k not in ("tokens", "trial") or v} for one in whole["measured"]
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_model(plan: Mapping[str, Any], sha256: str) -> None:
    """Raises UsageError where `plan` is bound to another model than the one with `sha256` (as `examine` gives it)."""
    bound = plan["model"]["sha256"]
    if bound is not None and bound != sha256:
        name = plan["model"]["name"] or Message("another model")
        raise UsageError(
            "The plan was made for {name} with SHA-256 {bound}…, this model has {sha256}…: weights or config are "
            "others. Make a plan for this model, or set model.sha256 in the plan to null to use it anyway.",
            name=name,
            bound=bound[:12],
            sha256=sha256[:12],
        )


def check_plan(
    plan: str | Path | Mapping[str, Any],
    parts: Anatomy,
    tensors: Mapping[str, TensorInfo],
    *,
    scale_dtype: torch.dtype = torch.float16,
    sha256: str | None = None,
) -> CheckedPlan:
    """Check a plan against the model of `parts` and `tensors`, and against the target it names.

    scale_dtype: the type scales are stored in. sha256: of the model, where it is known already.
    Raises UsageError for an address that does not exist or is missing, a scheme that is none, what the target does not
    hold, a plan of another model, and one that changes nothing.
    """
    source = Message("the plan") if isinstance(plan, Mapping) else str(plan)
    whole = read_plan(plan)
    if sha256 is not None:
        check_model(whole, sha256)
    shapes = {linear.address: linear.shape for linear in (*parts.linears(), *tables(parts))}
    whole["schemes"] = _of_groups(whole["groups"], shapes, source) | whole["schemes"]
    _check_addresses(whole["schemes"], shapes, parts, source)
    grids = {address: grid for address in shapes if (grid := _grid(whole, address, scale_dtype, source)) is not None}
    if not grids:
        raise UsageError(
            "{source} keeps every part as it is, so there is nothing to make lighter. Lower its budget.", source=source
        )
    target = find_target(whole["target"])
    dtype = tensors[parts.blocks[0][0].parameter].dtype
    held = storage(
        target, grids, shapes, frozenset(t.address for t in tables(parts)), tied(target, parts), parts, dtype
    )
    sizes = tensor_bytes(parts, tensors, grids)
    return CheckedPlan(whole, grids, held, sizes, _drop_stale(whole, sizes["total"]))


def _load(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise UsageError("{path}: there is no such file.{near} Give a plan that whet plan wrote.", path=path, near=near)
    try:
        value = parse_json(path.read_text(encoding="utf-8"), object_pairs_hook=_without_twins)
    except _Twin as error:
        raise UsageError(
            "{path}: the key {key} is there twice. Remove one of the two.", path=path, key=error
        ) from error
    except ValueError as error:
        raise UsageError("{path} is not valid JSON: {error}. Mend that place.", path=path, error=error) from error
    if not isinstance(value, dict):
        raise UsageError("{source} is not a plan: a plan is a JSON object. Make one with whet plan.", source=path)
    return value


class _Twin(Exception):
    """A key that stands twice in one object."""


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twin(key)
        found[key] = value
    return found


def _of_groups(groups: Mapping[str, Any], addresses: Collection[str], source: str) -> dict[str, str]:
    """What groups say of each part, as schemes by address. Raises UsageError for a pattern that fits nothing, and for a
    part that two groups decide on otherwise."""
    found: dict[str, tuple[str, str]] = {}
    for name, group in groups.items():
        schemes = group["choice"]["schemes"]
        schemes = {"*": schemes} if isinstance(schemes, str) else schemes
        for pattern in group["addresses"]:
            fitting = fnmatch.filter(addresses, pattern)
            if not fitting:
                raise UsageError(
                    "{source}, group {name}: nothing is called {pattern}.{near} Name linears as the model's own "
                    "tensors do, without .weight; * stands for anything.",
                    source=source,
                    name=name,
                    pattern=pattern,
                    near=did_you_mean(pattern, addresses),
                )
            for address in fitting:
                scheme = next((one for fits, one in schemes.items() if fnmatch.fnmatchcase(address, fits)), None)
                if scheme is None:
                    raise UsageError(
                        "{source}, group {name} has no scheme for {address}. Give it one, or keep.",
                        source=source,
                        name=name,
                        address=address,
                    )
                other, before = found.setdefault(address, (name, scheme))
                if before != scheme:
                    raise UsageError(
                        "{source}: {address} is {before} in group {other} and {scheme} in group {name}. Leave one.",
                        source=source,
                        address=address,
                        before=before,
                        other=other,
                        scheme=scheme,
                        name=name,
                    )
    return {address: scheme for address, (_, scheme) in found.items()}


def _check_addresses(
    schemes: Mapping[str, str], shapes: Mapping[str, tuple[int, int]], parts: Anatomy, source: str
) -> None:
    for address in schemes:
        if address not in shapes:
            if parts.head is None and address == parts.family.head:
                raise UsageError(
                    "{source}: {address} is tied to {embedding} in this model and takes its scheme. Remove {address} "
                    "from schemes.",
                    source=source,
                    address=address,
                    embedding=parts.embedding.address,
                )
            raise UsageError(
                "{source}: this model has no {address}.{near} Name linears as the model's own tensors do, without "
                ".weight.",
                source=source,
                address=address,
                near=did_you_mean(address, shapes),
            )
    missing = [address for address in shapes if address not in schemes]
    if missing:
        raise UsageError(
            "{source} has no scheme for {names}. Give each one, or keep to leave it as it is.",
            source=source,
            names=first_of(missing, _NAMED),
        )


def _grid(plan: Mapping[str, Any], address: str, scale_dtype: torch.dtype, source: str) -> Grid | None:
    scheme = plan["schemes"][address]
    if scheme.strip().lower() == KEEP:
        return None
    try:
        return stored_for(find_target(plan["target"]), parse_scheme(scheme, scale_dtype))
    except UsageError as error:
        raise UsageError(
            "{source}, {address}: {error} Or keep, which leaves the part as it is.",
            source=source,
            address=address,
            error=error.message,
        ) from error


def _drop_stale(plan: dict[str, Any], total: int) -> list[Message]:
    """Remove from `plan` what was said of other schemes; returns what was removed and what no longer holds."""
    notes = []
    said, now = plan["predicted"], schemes_hash(plan["schemes"])
    if said is not None and said["bytes"] == total and said["of"] in (None, now):
        said["of"] = now
    elif said is not None:
        plan["predicted"] = plan["gap"] = None
        plan.pop("time", None)
        plan["measured"] = []
        notes.append(Message("the plan's schemes were edited after it was made: its predictions are dropped"))
    limit = plan["budget"]["bytes"]
    if limit is not None and total > limit:
        notes.append(
            Message(
                "the plan takes {total:,} bytes of tensors, more than the {limit:,} of its budget",
                total=total,
                limit=limit,
            )
        )
    return notes
