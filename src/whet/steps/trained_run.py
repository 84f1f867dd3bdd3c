"""What runs of steps that train something beside a model say of themselves: to the lineage, to whoever does the same
again, and to the run that goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from whet import __version__
from whet.checkpoint import Checkpoint, copied_files, sha256
from whet.messages import Message, to_json
from whet.steps.option_kinds import Options

Asked = TypeVar("Asked", bound=Options)


class TrainedRun(Protocol):
    """A run as it was decided. base: the model's name; digest: its SHA-256."""

    @property
    def asked(self) -> Any: ...
    @property
    def checkpoint(self) -> Checkpoint: ...
    @property
    def rate(self) -> float: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def solve(self) -> Sequence[Tensor]: ...
    @property
    def verify(self) -> Sequence[Tensor]: ...
    @property
    def text(self) -> Mapping[str, Any] | None: ...
    @property
    def notes(self) -> tuple[Message, ...]: ...
    @property
    def threads(self) -> int: ...
    @property
    def base(self) -> str: ...
    @property
    def digest(self) -> str | None: ...
    def record(self) -> dict[str, Any]: ...


def options_of(asked: Options, kind: type[Asked]) -> Asked:
    """Those of the step alone, of what a verb was asked with."""
    return kind.model_construct(**asked.model_dump(include=set(kind.model_fields)))


def record_of(run: TrainedRun, step: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the lineage says of a run. said: what is of its step alone."""
    return {
        "step": step,
        **said,
        "steps": run.steps,
        "batch": run.asked.batch,
        "learning_rate": run.rate,
        "text": run.text,
        "seed": run.seed,
        "device": run.device,
        "compute": str(run.dtype).removeprefix("torch."),
        "threads": run.threads,
        "model_sha256": run.digest,
    }


def recipe_of(run: TrainedRun, step: str, options: Options) -> dict[str, Any]:
    """What does the same again: as many steps, however long they take."""
    again = options.document()
    again.pop("minutes", None)
    top = {} if Path(run.base).is_absolute() else {"model": run.base}
    return {"version": 1, **top, "seed": run.seed, "steps": [{step: again | {"steps": run.steps}}]}


def request_of(run: TrainedRun, step: str, options: Options, *more: Any) -> dict[str, Any]:
    """What a run depends on, as it is kept beside it. more: what the fingerprint is of besides the record."""
    files = {name: sha256(file) for name, file in copied_files(run.checkpoint.path).items()}
    record = run.record()
    texts = [hashlib.sha256(window.numpy().tobytes()).hexdigest() for window in (*run.solve, *run.verify)]
    whole = json.dumps([record, *more, files, texts], sort_keys=True)
    return {
        "whet": __version__,
        "step": step,
        "model": str(run.checkpoint.path.resolve()),
        "base": run.base,
        "asked": options.document(),
        "record": record,
        "recipe": recipe_of(run, step, options),
        "notes": to_json(list(run.notes)),
        "files": files,
        "fingerprint": hashlib.sha256(whole.encode()).hexdigest(),
    }
