"""The bench of skills: a line a skill, on the same questions; a lighter model that is there is asked again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from whet.starter import SKILLS

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.mark.long
def test_every_skill_has_a_line_and_a_folder_is_made_once(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "skills.py"), "--schemes", "int2-g32", "--solver", "nearest"]
    command += ["--samples", "8", "--window", "64", "--questions", "12", "--draws", "2", "--held-out", "8"]
    command += ["--out", str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = {cells[1].strip(): cells[2:] for cells in (line.split("|") for line in said.splitlines()) if len(cells) > 8}
    assert set(SKILLS) <= lines.keys()
    for skill in SKILLS:
        questions, about, original, lighter, lost, gained = (float(cell) for cell in lines[skill][:6])
        assert questions == 24 and 2 <= about <= 24 and round((original - lighter) * questions) == lost - gained
    (made,) = tmp_path.glob("*/whet.json")
    before = made.stat().st_mtime_ns
    assert said == subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert made.stat().st_mtime_ns == before
