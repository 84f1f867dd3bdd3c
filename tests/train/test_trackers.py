"""Trackers: those that are not known or not installed are refused by name, and one that is there is told every step."""

from __future__ import annotations

import json
from importlib.machinery import ModuleSpec

import pytest
import torch
from torch import nn

from whet.errors import MachineError, UsageError
from whet.steps import distill_options
from whet.train import TRACKERS, Schedule, Tracker, check_tracker, train


def test_one_that_is_not_there_is_refused_by_name(monkeypatch):
    assert distill_options.TRACKERS == TRACKERS
    check_tracker(None)
    with pytest.raises(UsageError, match="Did you mean tensorboard"):
        check_tracker("tensorbord")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "trackio" else ModuleSpec(name, None))
    check_tracker("wandb")
    with pytest.raises(MachineError, match="pip install trackio"):
        check_tracker("trackio")


def test_what_is_written_as_lines_is_told(tmp_path, monkeypatch):
    tracking = pytest.importorskip("accelerate.tracking")
    told = []

    class Fake:
        requires_logging_directory = True

        def __init__(self, run, folder):
            told.append((run, str(folder)))

        def log(self, values, step):
            told.append({"step": step, **values})

        def finish(self):
            told.append("end")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Fake)
    tracker = Tracker("tensorboard", "out", tmp_path / "files")
    torch.manual_seed(0)

    def loss(model, batch):
        found = model(batch["x"]).square()
        return found.sum(), torch.tensor(float(found.numel()))

    train(
        nn.Linear(4, 1), lambda step: {"x": torch.ones(2, 4)}, Schedule(0.01, 3), loss=loss, folder=tmp_path / "run",
        tracker=tracker,
    )  # fmt: skip
    tracker.close()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert told == [("out", str(tmp_path / "files")), *lines, "end"]
