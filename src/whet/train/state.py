"""What is kept of a training, in a folder or in memory: the state to go on from, the last good one, the start and the
best.

Files, each written whole or not at all:

    training-state.pt   where a stopped run goes on: trained parameters, optimisers, step, seconds, what was judged
    training-good.pt    the same at a step that does not depend on the clock: where a run goes back to
    training-start.pt   the trained parameters as they were
    training-best.pt    those with the least held-out loss
    metrics.jsonl       a line a step (loss, rate, norm, tokens, seconds) and a line a judgement (held_out, error)
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whet.errors import MachineError, UsageError
from whet.train.groups import trained
from whet.train.ranks import Alone
from whet.train.trackers import Tracker

STATE_FILE, GOOD_FILE, START_FILE, BEST_FILE = (f"training-{name}.pt" for name in ("state", "good", "start", "best"))
METRICS_FILE = "metrics.jsonl"


class Kept:
    """States of one run, by the names of their files; in memory where there is no folder. fingerprint: whose they
    are. Of several processes the first writes."""

    def __init__(self, folder: Path | None, fingerprint: str, ranks: Alone) -> None:
        self.folder, self.fingerprint, self.ranks = folder, fingerprint, ranks
        self._held: dict[str, dict[str, Any]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, state: Mapping[str, Any]) -> None:
        """Keep a state. Raises MachineError where it cannot be written."""
        whole = {"fingerprint": self.fingerprint, **state}
        if self.folder is None:
            self._held[name] = copy.deepcopy(whole)
            return
        if self.ranks.first:
            with _said(self.folder / name) as part:
                with part.open("wb") as file:
                    torch.save(whole, file)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self.folder / name)
        self.ranks.wait()

    def read(self, name: str) -> dict[str, Any] | None:
        """A state, None where there is none. Raises UsageError for one of another run."""
        if self.folder is None:
            return copy.deepcopy(self._held.get(name))
        file = self.folder / name
        if not file.exists():
            return None
        state: dict[str, Any] = torch.load(file, weights_only=True)
        if state["fingerprint"] != self.fingerprint:
            raise UsageError(
                "{file} was saved by training with another model, schedule or settings. Use another folder, or delete "
                "it to start again.",
                file=file,
            )
        return state

    def also(self, name: str, other: str) -> None:
        """Keep what is kept as `name` as `other` too."""
        if self.folder is None:
            self._held[other] = self._held[name]
            return
        if self.ranks.first:
            with _said(self.folder / other) as part:
                part.unlink(missing_ok=True)
                try:
                    os.link(self.folder / name, part)
                except OSError:  # a file system without links
                    shutil.copyfile(self.folder / name, part)
                part.replace(self.folder / other)
        self.ranks.wait()


class _said:
    """The file beside `path` that is written in its place; a failure leaves nothing behind and says what to do."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_suffix(".part")

    def __enter__(self) -> Path:
        return self.part

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self.part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise MachineError(
                "{path}: the training state cannot be written ({error}). Free some disk space or choose another "
                "folder, then resume.",
                path=self.path,
                error=error.strerror,
            ) from error


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters, not copied."""
    return {name: param.detach() for name, param in trained(model).items()}


@torch.no_grad()
def put_back(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Give the trained parameters the values that were kept."""
    for name, param in trained(model).items():
        param.copy_(kept[name])


class Metrics:
    """Lines of JSON of a run, in its folder; nowhere without one. tracker: told them too."""

    def __init__(self, folder: Path | None, tracker: Tracker | None = None) -> None:
        self.tracker = tracker
        self.file = None if folder is None else folder / METRICS_FILE

    def go_on(self, step: int) -> None:
        """Drop what was told after `step` steps, which are taken again."""
        if self.file is None:
            return
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        whole = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        self.file.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")

    def write(self, **told: Any) -> None:
        """Add a line."""
        if self.tracker is not None:
            self.tracker.tell(told)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")
