"""`whet.json`, the manifest of a folder that whet wrote: written from this model, and read back into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from whet.checkpoint.adapter import ADAPTER
from whet.checkpoint.files import sha256
from whet.errors import UsageError
from whet.foreign import recognized
from whet.strict import Note

MANIFEST = "whet.json"


class BaseModelName(BaseModel):
    """The original that everything was made from."""

    model_config = ConfigDict(extra="forbid")

    name: str
    sha256: str | None = None


class Manifest(BaseModel):
    """What a folder holds and how it came to be; docs/artifact.md tells of every key.

    linears: by address the grid and its parameters, and what rounding lost. masks: by address of linears that have one,
    how it was chosen and the share of weights that is 0; what they lost, where nothing was rounded. reading: how
    tensors are read where it is not each by its address and name. lineage: a record a step, the oldest first. files:
    bytes and SHA-256 by name.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    base_model: BaseModelName
    target: str
    container: str
    dequantize: bool = False
    linears: dict[str, dict[str, Any]] = Field(default_factory=dict)
    masks: dict[str, dict[str, Any]] | None = None
    reading: dict[str, Any] | None = None
    transforms: dict[str, dict[str, Any]] | None = None
    adapter: dict[str, Any] | None = None
    copied: list[str] = Field(default_factory=list)
    dropped: str | None = None
    verify: dict[str, float] = Field(default_factory=dict)
    notes: list[str | Note] = Field(default_factory=list)
    lineage: list[dict[str, Any]] = Field(default_factory=list)
    gguf: dict[str, Any] | None = None
    files: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As it is written; what does not apply is left out."""
        absent = ("masks", "reading", "transforms", "adapter", "gguf")
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
        raise UsageError(
            "{file} is damaged at {place}: {fault}. Download the folder again, or make it anew.",
            file=file,
            place=place,
            fault=recognized(fault["msg"]),
        ) from error


def is_alone(manifest: Mapping[str, Any]) -> bool:
    """Whether the folder of this whet.json is for its .gguf alone."""
    return bool((manifest.get("gguf") or {}).get("alone"))


def hashed_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of every file of a folder but the manifest, by name."""
    # names with a dot are temporary files of a run that was killed; each is replaced or belongs to whet.json itself
    names = sorted(
        str(p.relative_to(folder))
        for p in (*folder.iterdir(), *(folder / ADAPTER).glob("*"))
        if p.is_file() and p.name != MANIFEST and not p.name.startswith(".")
    )
    return {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256(folder / n)} for n in names}
