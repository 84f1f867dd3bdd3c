"""The bench of scorers: everything it says it compares is there, and ranks are ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models import documents, make

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.mark.long
def test_every_scorer_is_ranked_against_what_was_measured(tmp_path: Path) -> None:
    model = make(tmp_path / "model", tied=True)
    for name, seed in (("train", 1), ("eval", 2)):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(documents(20, seed=seed)), encoding="utf-8")
    command = [sys.executable, str(BENCH / "scoring.py"), "--model", str(model), "--out", str(tmp_path)]
    command += [
        "--text",
        str(tmp_path / "train.txt"),
        "--eval",
        str(tmp_path / "eval.txt"),
        "--schemes",
        "int3,int4s-g32",
    ]
    command += ["--samples", "8", "--window", "48", "--measured", "200", "--resamples", "20"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads((tmp_path / "scoring" / "model" / "scoring.json").read_text(encoding="utf-8"))
    ours = "gradient-output (whet)"
    names = {ours, "Taylor", "CMPQ", "PMPQ", "TDMPQ", "  without positions", "second-moment error"}
    assert names <= set(found["scorers"]) and all(name in said for name in names)
    assert len(found["measured"]) == 15 and all(kl > 0 for row in found["measured"].values() for kl in row.values())
    assert all(-1 <= value[0] <= 1 for row in found["spearman"].values() for value in row.values())
    assert found["spearman"][ours]["int3"][0] > 0.8
    assert {plan["plan"] for plan in found["plans"]} >= {"planned at 4.5 bits", "int4s-g64 throughout"}
    assert all(plan["predicted"] > 0 and plan["kl"] > 0 for plan in found["plans"])
