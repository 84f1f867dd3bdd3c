"""`whet.json`, the manifest of a folder that whet wrote: written from this model, and read back into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from whet.checkpoint.adapter import ADAPTER
from whet.checkpoint.beside import subfolders
from whet.checkpoint.dynamic import DYNAMIC, Dynamic
from whet.checkpoint.files import sha256
from whet.checkpoint.table import checked_table
from whet.errors import UsageError
from whet.foreign import recognized
from whet.messages import Message
from whet.strict import Note

MANIFEST = "whet.json"
TIMES = "times.json"  # measured times, which differ every time: no other file of a model says how long anything took


def _in_folder(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(Message("{name!r} is no file of the folder", name=name))
    return name


FileName = Annotated[str, AfterValidator(_in_folder)]


class BaseModelName(BaseModel):
    """The original that everything was made from."""

    model_config = ConfigDict(extra="forbid")

    name: str
    sha256: str | None = None


class _Reading(BaseModel):
    """How tensors are read, as `formats.reading` writes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    linears: Annotated[dict[str, dict[str, Any]], AfterValidator(checked_table)]
    names: dict[str, str] = Field(default_factory=dict)
    convert: bool = False


class _Amounts(BaseModel):
    """How many of each unit a model has: blocks, and of every block the others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    layers: int = Field(ge=1)
    channels: int = Field(ge=0)
    heads: int = Field(ge=0)
    experts: int = Field(ge=0)


class _Smaller(BaseModel):
    """A smaller model that can be cut from a sorted one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    size: float = Field(gt=0, lt=1)
    share: float = Field(gt=0, lt=1)
    amounts: _Amounts
    layers: list[Annotated[int, Field(ge=0)]]
    kl: float
    top1: float
    kl_repaired: float | None
    trials: list[dict[str, float]]


class _Elastic(BaseModel):
    """What a sorted model is sorted by, and the smaller models in it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    order: list[int]
    sorted: dict[str, str]
    sizes: list[_Smaller] = Field(min_length=1)


class _Level(BaseModel):
    """One of several precisions: what it lost, the bytes that it adds, and those of its weight files alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scheme: str
    embed: str | None
    kl: float | None = None
    top1: float | None = None
    bytes: int = Field(ge=0)
    alone: int = Field(ge=0)


def _levels(value: dict[str, Any]) -> dict[str, Any]:
    """That `value` is precisions by their bits, the finest first."""
    bits = [int(name) for name in value if name.isascii() and name.isdigit()]
    if len(bits) != len(value) or len(bits) < 2 or bits != sorted(set(bits), reverse=True):
        raise ValueError(Message("{names} are no precisions", names=", ".join(value)[:60]))
    for one in value.values():
        _Level.model_validate(one)
    return value


class _Listed(BaseModel):
    """Size and SHA-256 of a file that was written; neither of one that may differ."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bytes: int | None = Field(default=None, ge=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _both(self) -> _Listed:
        if (self.bytes is None) != (self.sha256 is None):
            raise ValueError(Message("bytes and sha256 belong together"))
        return self


def _as(kind: type[BaseModel]) -> AfterValidator:
    """That a mapping is what `kind` says; it stays the mapping that it is."""

    def checked(value: dict[str, Any]) -> dict[str, Any]:
        kind.model_validate(value)
        return value

    return AfterValidator(checked)


class _Kept(BaseModel):
    """What keys and values are kept in, whose scales the folder holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["fp8", "fp8-head", "int8-tensor", "int8-head"]


class Manifest(BaseModel):
    """What a folder holds and how it came to be; docs/artifact.md tells of every key.

    linears: by address the grid and its parameters, and what rounding lost. masks: by address of linears that have one,
    how it was chosen and the share of weights that is 0; what they lost, where nothing was rounded. kept: what stays of
    a pruned model, by the numbers of the one it was made of. elastic: of a sorted one, the smaller models that can be
    cut from it. dynamic: of one that decides at run time, what and how much is used. levels: by their bits, its
    several precisions. gguf, graph: of the finished file in it, and whether the folder is for that `alone`. reading:
    how tensors are read where it is not each by its address and name. kv: what keys and values are kept in. lineage: a
    record a step, the oldest first. files: bytes and SHA-256 by name.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    base_model: BaseModelName
    target: str
    container: str
    dequantize: bool = False
    linears: Annotated[dict[str, dict[str, Any]], AfterValidator(checked_table)] = Field(default_factory=dict)
    masks: dict[str, dict[str, Any]] | None = None
    kept: dict[str, Any] | None = None
    elastic: Annotated[dict[str, Any], _as(_Elastic)] | None = None
    dynamic: Annotated[dict[str, Any], _as(Dynamic)] | None = None
    levels: Annotated[dict[str, dict[str, Any]], AfterValidator(_levels)] | None = None
    reading: Annotated[dict[str, Any], _as(_Reading)] | None = None
    transforms: dict[str, dict[str, Any]] | None = None
    kv: Annotated[dict[str, Any], _as(_Kept)] | None = None
    adapter: dict[str, Any] | None = None
    copied: list[str] = Field(default_factory=list)
    dropped: str | None = None
    verify: dict[str, float] = Field(default_factory=dict)
    notes: list[str | Note] = Field(default_factory=list)
    lineage: list[dict[str, Any]] = Field(default_factory=list)
    gguf: dict[str, Any] | None = None
    graph: dict[str, Any] | None = None
    files: dict[FileName, Annotated[dict[str, Any], _as(_Listed)]] = Field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As it is written; what does not apply is left out."""
        absent = (
            "masks",
            "kept",
            "elastic",
            "dynamic",
            "levels",
            "reading",
            "transforms",
            "kv",
            "adapter",
            "gguf",
            "graph",
        )
        return {k: v for k, v in self.model_dump().items() if not (k in absent and v is None)}


def read_manifest(value: dict[str, Any], file: Path) -> dict[str, Any]:
    """`value`, checked. Raises UsageError naming what a newer whet wrote, or what is damaged."""
    if value.get("format") != 1:
        raise UsageError(
            "{file} has format {format!r}; this whet reads format 1. Update whet.",
            file=file,
            format=value.get("format"),
        )
    if unknown := [key for key in value if key not in Manifest.model_fields]:
        raise UsageError(
            "{file} has {unknown}, which this whet does not know: a newer one wrote it. Update whet.",
            file=file,
            unknown=", ".join(unknown),
        )
    try:
        return Manifest.model_validate(value).document()
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        said = fault["ctx"]["error"].args[0] if fault["type"] == "value_error" else recognized(fault["msg"])
        raise UsageError(
            "{file} is damaged at {place}: {fault}. Download the folder again, or make it anew.",
            file=file,
            place=place,
            fault=said,
        ) from error


def is_alone(manifest: Mapping[str, Any]) -> bool:
    """Whether the folder of this whet.json is for its finished file alone."""
    return any(bool((manifest.get(kind) or {}).get("alone")) for kind in ("gguf", "graph"))


def hashed_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of every file of a folder but the manifest, by name; of `times.json` neither."""
    # names with a dot are temporary files of a run that was killed; each is replaced or belongs to whet.json itself
    inner = (p for name in (ADAPTER, DYNAMIC, *subfolders(folder)) for p in (folder / name).glob("*"))
    names = sorted(
        str(p.relative_to(folder))
        for p in (*folder.iterdir(), *inner)
        if p.is_file() and p.name != MANIFEST and not p.name.startswith(".")
    )
    return {
        n: {} if n == TIMES else {"bytes": (folder / n).stat().st_size, "sha256": sha256(folder / n)} for n in names
    }
