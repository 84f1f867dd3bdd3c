"""The bench of repairs: bits count the adapter, and what is compared is measured on the same windows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from models import documents, make


def test_points_with_and_without_a_repair_are_measured(tmp_path: Path, bench: Callable[..., str]) -> None:
    model = make(tmp_path / "model", tied=True)
    (tmp_path / "train.txt").write_text("\n\n".join(documents(40, seed=1)), encoding="utf-8")
    given = ["--model", model, "--out", tmp_path / "out", "--train", tmp_path / "train.txt"]
    small = ["--draws", 1, "--samples", 4, "--window", 32, "--windows", 4]
    said = bench("repair", *given, "--points", "int2-g32,int2-g32+4,int8-g32", *small)
    found = json.loads((tmp_path / "out" / "repair.json").read_text(encoding="utf-8"))
    plain, repaired, wide = found["points"]
    assert plain["kl"] > repaired["kl"] > wide["kl"] > 0 and "int2-g32+4" in said
    # q and o are 64 x 64, k and v 32 x 64, gate, up and down 96 x 64
    numbers, rows = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64, 2 * 128 + 2 * 96 + 3 * 160
    assert repaired["bits"] - plain["bits"] == pytest.approx(16 * 4 * rows / numbers)
