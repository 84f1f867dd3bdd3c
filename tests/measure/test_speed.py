"""Speed: turns are taken fairly, ratios are by round, and a process of its own tells the memory of one model."""

from __future__ import annotations

import os

import pytest

from whet import child
from whet.engines import Timing
from whet.measure import speed
from whet.measure.speed import footprint, side_by_side


class Clockwork:
    """An engine whose times are given beforehand, and that writes down when it was asked."""

    name = "clockwork"

    def __init__(self, label, seconds, asked):
        self.label, self.seconds, self.asked = label, iter(seconds), asked

    def time(self, prompt, new_tokens):
        self.asked.append(self.label)
        seconds = next(self.seconds)
        return Timing(seconds, 2 * seconds, len(prompt), new_tokens)


def test_rounds_interleave_the_first_is_thrown_away_and_ratios_are_within_rounds():
    asked = []
    # the machine becomes ten times slower in the third round: ratios by round do not notice
    original = Clockwork("o", [99, 1, 10, 1], asked)
    lighter = Clockwork("l", [99, 0.5, 5, 0.5], asked)
    found = side_by_side(original, lighter, [1] * 8, rounds=3, new_tokens=4)
    assert "".join(asked) == "loollool"
    assert found["prefill"]["original"] == 8.0 and found["prefill"]["lighter"] == 16.0
    assert found["prefill"]["ratio"] == {"value": 2.0, "spread": [2.0, 2.0]}
    assert found["decode"]["original"] == 2.0 and found["runtime"] == "clockwork"


def test_a_real_model_takes_time(original, twin):
    found = side_by_side(original, twin, list(range(2, 18)), rounds=2, new_tokens=3)
    for what in ("prefill", "decode"):
        assert found[what]["original"] > 0 and found[what]["lighter"] > 0
        low, high = found[what]["ratio"]["spread"]
        assert low <= found[what]["ratio"]["value"] <= high


def test_footprint_of_a_folder_in_its_own_process(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = footprint(tmp_path, [2, 3, 4], new_tokens=2)
    assert found["load_seconds"] > 0
    if found["peak_bytes"] is not None:
        assert found["peak_bytes"] >= found["before_bytes"] > 1 << 24


@pytest.mark.parametrize("path", [None, "", os.pathsep])
def test_no_module_of_the_current_folder_runs_in_the_process(model, tokenizer, tmp_path, monkeypatch, path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for name in ("whet", "torch", "json", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    monkeypatch.chdir(tmp_path)
    if path is not None:  # beside where the tests find whet
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", os.environ.get("PYTHONPATH", ""), path]))
    assert footprint(".", [2, 3, 4], new_tokens=2)["load_seconds"] > 0
    assert not (tmp_path / "ran").exists()


def test_a_process_that_fails_says_so_and_does_not_raise(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'first line' >&2\necho 'Killed' >&2\nexit 137\n")
    python.chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(python))
    assert footprint(tmp_path, [2, 3]) == {"error": "the measuring process ended with code 137: Killed"}


def test_resident_memory_is_read_in_bytes():
    now, most = speed._resident("VmRSS"), speed._resident("VmHWM")
    if now is None:
        pytest.skip("no /proc here")
    assert 1 << 24 < now <= most < 1 << 40
