"""What lies beside a model that decides at run time how much of it is used: `dynamic/weights.safetensors`, and the
entry `dynamic` of whet.json. Others that load the folder know nothing of it and run the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from whet.checkpoint.beside import inside
from whet.checkpoint.files import read_header, read_tensor, write_tensors
from whet.errors import UsageError
from whet.messages import Message

DYNAMIC = "dynamic"
_WEIGHTS = "weights.safetensors"


class _Active(BaseModel):
    """A share of the channels: how many, the bytes of weights that are used then, and what is lost on held-out text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    active: float = Field(gt=0, lt=1)
    channels: int = Field(ge=1)
    bytes: int = Field(ge=0)
    kl: float
    top1: float
    kl_other: float
    kl_static: float


class Dynamic(BaseModel):
    """What is decided at run time. channels: `sizes`. exits: numbers of blocks `after` which a token may leave where
    the likeliest token has the probability `threshold`, and what that does on held-out text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["channels", "exits"]
    bytes: int = Field(ge=0)
    stored: int = Field(ge=0)
    joint: bool = False
    sizes: list[_Active] = Field(default_factory=list)
    after: list[int] = Field(default_factory=list)
    threshold: float | None = None
    target: float | None = None
    calibrated: dict[str, Any] | None = None
    report: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Dynamic:
        wanting = not self.sizes if self.kind == "channels" else not self.after or self.threshold is None
        if wanting or any(before >= now for before, now in zip(self.after, self.after[1:], strict=False)):
            raise ValueError(Message("it does not say what is decided"))
        return self


def dynamic_file(folder: Path) -> Path:
    """Where the weights beside a model lie."""
    return folder / DYNAMIC / _WEIGHTS


def write_dynamic(folder: Path, tensors: Mapping[str, Tensor]) -> int:
    """Write the weights beside a model; returns their bytes."""
    file = dynamic_file(folder)
    file.parent.mkdir(exist_ok=True)
    write_tensors(file, dict(tensors))
    return file.stat().st_size


def read_dynamic(folder: Path) -> dict[str, Tensor]:
    """The weights beside a model. Raises UsageError where they are missing."""
    file = dynamic_file(folder)
    if not file.is_file() or not inside(folder, file):
        raise UsageError(
            "{folder}: whet.json says that it decides at run time, and {file} is missing. Copy the folder again, with "
            "the folders in it.",
            folder=folder,
            file=f"{DYNAMIC}/{_WEIGHTS}",
        )
    return {name: read_tensor(info) for name, info in read_header(file).items()}
