"""What was measured is kept as long as nothing that it depends on changed, and a broken file is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from whet.timing import machine
from whet.timing.advice import advice
from whet.timing.machine import cache_file, keep, kept, thread_limit
from whet.timing.order import error_of, ratio


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_measurement_is_kept_under_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    file = cache_file("pairs", {"shapes": "a"})
    assert kept(file) is None and keep(file, {"x": 1}) and kept(cache_file("pairs", {"shapes": "a"})) == {"x": 1}
    others = {cache_file("pairs", {"shapes": "b"}), cache_file("costs", {"shapes": "a"})}
    for name, value in (("_version", lambda package: "0"), ("cores", lambda: 777), ("thread_limit", lambda: 99)):
        with monkeypatch.context() as changed:
            changed.setattr(machine, name, value)
            others.add(cache_file("pairs", {"shapes": "a"}))
    with monkeypatch.context() as changed:
        flags = Path(os.environ["XDG_CACHE_HOME"]) / "cpuinfo"
        flags.write_text("model name : X\nflags : sse\n")
        changed.setattr(machine, "_CPUINFO", flags)
        others.add(cache_file("pairs", {"shapes": "a"}))
    assert len(others) == 6 and file not in others


def test_a_broken_file_is_none_and_a_folder_that_cannot_be_written_costs_time_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = cache_file("pairs", {})
    keep(file, {"x": 1})
    for broken in (b"", b"{", b"[1]", b"\xff\xfe"):
        file.write_bytes(broken)
        assert kept(file) is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/1/nowhere")
    assert not keep(cache_file("pairs", {}), {"x": 1})


def test_threads_are_at_most_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    for said, limit in (("3", 3), ("64", 8), ("", 8), ("0", 8), ("4,2", 4), ("many", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert thread_limit() == limit


def test_ratios_are_of_turns_side_by_side() -> None:
    timed = {"decode": {"own": [2.0, 40.0, 3.0], "base": [1.0, 20.0, 1.0]}}  # a slow second slows both
    assert ratio(timed) == 2.0 and error_of(timed) == pytest.approx(0.4)


def pair(runtime: str, kind: str, bits: float, decode: float, prefill: float, speedup: float) -> dict:
    sizes = {"bytes": bits * 1e7, "bandwidth": 1e9, "share": 0.5, "measured": "whole", "spread": None}
    told = {"runtime": runtime, "format": kind, "bits": bits, "decode": decode, "prefill": prefill}
    return {**told, "speedup": speedup, **sizes}


def test_advice_names_what_is_fast_and_what_is_slower_than_the_original() -> None:
    pairs = [
        pair("llama.cpp", "F16", 16, 10, 90, 1.0),
        pair("llama.cpp", "Q5_0", 5.5, 9, 60, 0.9),
        pair("llama.cpp", "Q8_0", 8.5, 20, 70, 2.0),
        pair("llama.cpp", "Q4_0", 4.5, 30, 60, 3.0),
    ]
    settings = [
        {"threads": 1, "policy": "PASSIVE", "ratio": 1.0},
        {"threads": 2, "policy": "PASSIVE", "ratio": 0.6},
        {"threads": 2, "policy": "ACTIVE", "ratio": 3.0},
    ]
    told = advice({"pairs": pairs, "settings": settings})
    assert "Q4_0: 30 tokens" in told[0]
    assert any("slower than 16 bits" in one and "Q5_0" in one and "Q8_0" not in one for one in told)
    assert any("more bits" in one and "Q5_0" in one and "Q4_0" not in one for one in told)
    assert any("prompts are read fastest by llama.cpp with F16" in one for one in told)
    assert any("OMP_NUM_THREADS=2" in one for one in told) and any("5.0 times as long" in one for one in told)
    assert sum("not measured here" in one for one in told) == 2
    assert advice({"pairs": [], "settings": []}) == ["nothing could be timed here"]
