"""Running one bench inside the test process, as `python bench/NAME.py` does: a process of its own takes seconds of
imports each time."""

from __future__ import annotations

import contextlib
import io
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def bench() -> Callable[..., str]:
    """`bench("repair", "--draws", 1)` runs bench/repair.py and returns what it printed."""

    def call(name: str, *arguments: object) -> str:
        file = str(BENCH / f"{name}.py")
        with contextlib.redirect_stdout(io.StringIO()) as said, pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [file, *map(str, arguments)])
            runpy.run_path(file, run_name="__main__")
        return said.getvalue()

    return call
