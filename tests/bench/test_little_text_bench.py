"""The bench of little text: a line for each number of documents, scheme and solver, with every draw."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.mark.long
def test_every_solver_has_a_line_with_all_draws(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "little_text.py"), "--documents", "2", "--schemes", "int2-g32"]
    command += ["--draws", "2", "--held-out", "4", "--out", str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = {cells[4].strip(): cells for cells in (line.split("|") for line in said.splitlines()) if len(cells) > 6}
    for solver in ("nearest", "gptq"):
        _, documents, tokens, scheme, _, mean, draws, _ = (cell.strip() for cell in lines[solver])
        losses = [float(kl) for kl in draws.split()]
        assert (documents, scheme, len(losses)) == ("2", "int2-g32", 2) and 20 < float(tokens) < 512
        assert all(kl > 0 for kl in losses) and abs(float(mean) - sum(losses) / 2) < 2e-5
