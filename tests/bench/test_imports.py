"""Every bench can be imported: what the house moves, its benches find."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
BENCH = TESTS.parent / "bench"


def test_every_bench_finds_what_it_imports() -> None:
    """A bench may need a library of an extra that is not installed here; nothing of ours may be missing."""
    names = sorted(path.stem for path in BENCH.glob("*.py"))
    assert len(names) > 20
    ours = {"whet", *names, *(path.stem for path in TESTS.glob("*.py"))}
    everything_is_installed = bool(os.environ.get("WHET_NO_SKIP"))
    tried = "\n".join(
        [
            "import importlib, traceback",
            f"for name in {names!r}:",
            "    try:",
            "        importlib.import_module(name)",
            "    except ModuleNotFoundError as error:",
            f"        if {everything_is_installed} or str(error.name).split('.')[0] in {ours!r}:",
            "            traceback.print_exc()",
            "    except Exception:",
            "        traceback.print_exc()",
        ]
    )
    known = {**os.environ, "PYTHONPATH": str(TESTS)}  # as `make readme` has it
    done = subprocess.run(
        [sys.executable, "-c", tried], cwd=BENCH, env=known, capture_output=True, text=True, check=True
    )
    assert "Traceback" not in done.stderr, done.stderr
