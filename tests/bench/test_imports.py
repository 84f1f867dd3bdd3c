"""Every bench can be imported: what the house moves, its benches find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_every_bench_finds_what_it_imports() -> None:
    names = sorted(path.stem for path in BENCH.glob("*.py"))
    assert len(names) > 20
    tried = "\n".join(
        [
            "import importlib, traceback",
            f"for name in {names!r}:",
            "    try:",
            "        importlib.import_module(name)",
            "    except Exception:",
            "        traceback.print_exc()",
        ]
    )
    known = {**os.environ, "PYTHONPATH": str(BENCH.parent / "tests")}  # as `make readme` has it
    done = subprocess.run(
        [sys.executable, "-c", tried], cwd=BENCH, env=known, capture_output=True, text=True, check=True
    )
    assert "Traceback" not in done.stderr, done.stderr
