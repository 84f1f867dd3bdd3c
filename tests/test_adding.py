"""docs/adding.md is run as it stands: a toy grid, a toy solver and a toy step, three places each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import models

PAGE = Path(__file__).parents[1] / "docs" / "adding.md"
# A process of its own: rows that the page adds are gone with it, as tables are read when a recipe is.
RUN = """
import importlib, pathlib, sys, types
sys.path.insert(0, sys.argv[3])
import covering, models
if not covering.WHOLE:  # as the fixture no_process does it
    told = {"load_seconds": 1.0, "peak_bytes": 1 << 28, "before_bytes": 1 << 27}
    importlib.import_module("whet.measure.compare").footprint = lambda *_, **__: told
sys.modules["adding"] = types.ModuleType("adding")
names = sys.modules["adding"].__dict__
names |= {"MODEL": pathlib.Path(sys.argv[1]), "OUT": pathlib.Path(sys.argv[2]), "TEXT": models.documents(300)}
exec(compile(sys.stdin.read(), "adding.md", "exec"), names)
"""


def test_the_page_runs(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["A grid", "A solver", "A step"]
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 9
    original = models.make(tmp_path / "model", dtype=models.torch.float32)
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(original), str(tmp_path), str(Path(__file__).parent)],
        input="\n".join(blocks),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
