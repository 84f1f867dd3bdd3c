"""Training whose last share is on text of the student's own: it runs to the same weights, and says what it watched."""

from __future__ import annotations

import json

import pytest

import models
from killing import hashes
from whet import distill, prune
from whet.checkpoint import Checkpoint
from whet.errors import UsageError

DOCUMENTS = models.documents(80, 30)
HOW = {"text": DOCUMENTS, "window": 24, "samples": 60, "steps": 8, "batch": 96, "rate": 1e-3, "own_text": "50%"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    original = models.make(folder / "original", "llama", blocks=2)
    prune(original, folder / "student", remove=0.3, units="channels", repair=False, importance="magnitude")
    return folder


def stopped(done):
    """Stop after a step, and keep the lines of metrics so far."""

    def stop(event):
        if event["event"] == "progress" and event["stage"] == "train" and event["done"] == done:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("options", [{}, {"writer": "switch"}, {"targets": "targets"}, {"own_loss": "dpkd"}])
def test_stopped_and_resumed_the_weights_are_the_same_and_what_is_written_is_watched(tmp_path, pair, options):
    options = options | ({"targets": tmp_path / "targets"} if "targets" in options else {})
    asked = {"teacher": pair / "original", **HOW, **options}
    told = distill(pair / "student", tmp_path / "whole", **asked)
    assert told["training"]["steps"] == 8 and told["distillation"]["own_text"] == 0.5
    with pytest.raises(KeyboardInterrupt):
        distill(pair / "student", tmp_path / "out", on_event=stopped(6), **asked)
    lines = (tmp_path / "out" / ".whet" / "training" / "metrics.jsonl").read_text().splitlines()
    steps = [line for line in map(json.loads, lines) if "loss" in line]
    assert ["entropy" in line for line in steps] == [False] * 4 + [True] * 2
    for line in steps[4:]:
        assert line["teacher_entropy"] > 0 and 0 < line["distinct"] <= 1 and 1 <= line["length"] <= 18
        assert ("stepped_in" in line) == ("writer" in options)
    distill(pair / "student", tmp_path / "out", **asked)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_a_collapse_is_told_and_the_best_is_kept(tmp_path, pair, monkeypatch):
    monkeypatch.setattr("whet.train.watch.ENTROPY", 100.0)
    told = distill(pair / "student", tmp_path / "out", teacher=pair / "original", **HOW)
    assert told["training"]["collapsed"] == 7 and any(
        "wrote itself collapsed after 7 steps" in str(n) for n in told["notes"]
    )
    assert Checkpoint(tmp_path / "out").whet["lineage"][-1]["training"]["collapsed"] == 7


def test_what_cannot_be_is_refused(tmp_path, pair):
    for options, words in [
        ({"own_text": "120%"}, "own-text 120% is no share"),
        ({"own_text": "some"}, "own-text some is no share"),
        ({"writer": "swich"}, "Did you mean switch"),
        ({"own_text": None, "writer": "switch"}, "writer is about .* give own-text with it"),
        ({"own_text": None, "own_loss": "dpkd"}, "own_loss is about .* give own-text with it"),
        ({"own_loss": "dpkd", "writer": "switch"}, "leave out writer"),
    ]:
        with pytest.raises(UsageError, match=words):
            distill(pair / "student", tmp_path / "out", **{"teacher": pair / "original", **HOW, **options})
        assert not (tmp_path / "out").exists()
