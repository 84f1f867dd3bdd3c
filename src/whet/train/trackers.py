"""Trackers of training (TensorBoard, trackio, wandb), through accelerate's: a line of metrics goes to one too."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.errors import MachineError, UsageError, did_you_mean

TRACKERS = "tensorboard, trackio, wandb"


def check_tracker(name: str | None) -> None:
    """Raises UsageError for a tracker that is not known, MachineError for one that is not installed."""
    if name is None:
        return
    known = TRACKERS.split(", ")
    if name not in known:
        raise UsageError(
            "tracker {name!r} is not known.{near} Trackers: {known}.",
            name=name,
            near=did_you_mean(name, known),
            known=TRACKERS,
        )
    missing = [one for one in ("accelerate", name) if importlib.util.find_spec(one) is None]
    if missing:
        raise MachineError(
            "{name} needs the package {missing}, which is not installed. Install it (pip install {missing}), or leave "
            "track out: metrics are written as lines of JSON anyway.",
            name=name,
            missing=" ".join(missing),
        )


class Tracker:
    """One of accelerate's, told the numbers of each step. folder: of those that write files. run: what it is called."""

    def __init__(self, name: str, run: str, folder: Path) -> None:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # trackers ask it whether this process tells
        kind: Any = LOGGER_TYPE_TO_CLASS[name]
        self.of = kind(run, folder) if kind.requires_logging_directory else kind(run)
        if hasattr(self.of, "start"):
            self.of.start()

    def tell(self, told: Mapping[str, Any]) -> None:
        """The numbers of a line of metrics, at its step."""
        values = {name: value for name, value in told.items() if name != "step" and isinstance(value, int | float)}
        self.of.log(values, step=told["step"])

    def close(self) -> None:
        """No more comes."""
        self.of.finish()
