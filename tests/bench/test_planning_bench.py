"""The bench of planning compares what it says: equal bytes counted alike, llama.cpp's own blocks, one run goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models import documents, make

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def rivals():
    sys.path.insert(0, str(BENCH))
    try:
        import planning_rivals

        yield planning_rivals
    finally:
        sys.path.remove(str(BENCH))


@pytest.fixture
def scores(rivals):
    """Scores of nine blocks of two linears and an embedding, in which a bit more is a quarter of the loss."""

    def part(address, role, block, worth):
        schemes = {}
        for name in rivals.GRIDS:
            bits, group = int(name[3]), int(name.partition("-g")[2] or 0)
            schemes[name] = {"bytes": 100 * bits + (1600 // group if group else 0), "kl": worth * 4.0**-bits}
        return {"address": address, "role": role, "block": block, "bytes": 1600, "parameters": 800, "schemes": schemes}

    parts = [part(f"b{i}.{role}", role, i, 1 + i) for i in range(9) for role in ("v", "up")]
    return {"parts": [*parts, part("embed", "embedding", None, 5.0)], "other": {"bytes": 64, "parameters": 32}}


def test_uniform_points_are_all_pairs_and_count_every_byte(rivals, scores):
    points = list(rivals.uniform([scores]))
    assert len(points) == len({point.name for point in points}) == len(rivals.GRIDS) * (len(rivals.GRIDS) + 1)
    point = next(p for p in points if p.name == "uniform int4s-g32, embedding keep")
    assert point.bytes == 64 + 18 * (400 + 50) + 1600
    assert point.kl == pytest.approx(sum(2 * (1 + i) for i in range(9)) * 4.0**-4)
    assert point.kl == pytest.approx(next(p for p in rivals.uniform([scores, scores]) if p.name == point.name).kl)


def test_candidates_fit_and_have_different_linears(rivals, scores):
    limit = 8000
    points = list(rivals.uniform([scores]))
    found = rivals.candidates(points, limit, 4)
    assert len({point.linears for point in found}) == 4
    assert all(point.bytes <= limit for point in found)
    assert found[0].kl == min(point.kl for point in points if point.bytes <= limit)


def test_hand_rules_give_more_to_the_blocks_they_are_known_for(rivals, scores):
    found = rivals.hand_rules([scores], 9000)
    bits = {
        rule: {address: int(scheme[3]) for address, scheme in point.schemes.items()} for rule, point in found.items()
    }
    mixed, ends = bits[rivals.MIXED], bits[rivals.ENDS]
    base = min(mixed.values())
    # llama.cpp with nine layers: i < 1, i >= 7, and (i - 1) % 3 == 2
    assert [i for i in range(9) if mixed[f"b{i}.v"] == base + 2] == [0, 3, 6, 7, 8]
    assert all(mixed[f"b{i}.up"] == base for i in range(9))
    assert mixed["embed"] == 6
    base = ends["b1.v"]
    assert [i for i in range(9) if ends[f"b{i}.up"] == base + 2] == [0, 8]
    assert all(point.bytes <= 9000 for point in found.values())
    assert rivals.hand_rules([scores], 100) == {rivals.MIXED: None, rivals.ENDS: None}


@pytest.mark.long
def test_a_whole_comparison_of_a_tiny_model_goes_on_where_it_stopped(tmp_path):
    model = make(tmp_path / "model")
    for name, seed in (("train", 1), ("eval", 2)):
        (tmp_path / f"{name}.txt").write_text(" ".join(documents(20, seed=seed)))
    command = [sys.executable, str(BENCH / "planning.py"), "size", "--model", str(model)]
    command += ["--train", str(tmp_path / "train.txt"), "--eval", str(tmp_path / "eval.txt"), "--bits", "5"]
    command += ["--draws", "2", "--samples", "4", "--window", "64", "--measured", "2", "--tries", "2"]
    command += ["--out", str(tmp_path / "out")]
    first = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert "(best uniform)" in first
    assert "At equal KL" in first
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")} == kept
