"""What every test shares: one thread a worker, no network, and no silent skips where skips are not allowed.

With `WHET_ALL=1` (`make test-all` sets it) everything runs: tests marked `long`, and matrices whole (`covering.py`).
With `WHET_NO_SKIP=1` (continuous integration sets it) a skipped test fails, so that a missing package or file cannot
quietly take tests away. Tests marked `gpu` are left out on a machine without CUDA. What is left out is counted as
deselected.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from typing import Any

import pytest

from covering import WHOLE, left_out

# Before anything imports torch or transformers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Hashes of tests' files go nowhere; what was downloaded stays where it is.
_CACHES = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
os.environ.setdefault("HF_HOME", os.path.join(_CACHES, "huggingface"))
os.environ["XDG_CACHE_HOME"] = os.path.join(tempfile.gettempdir(), "whet-tests", str(os.getpid()))
# transformers copies a folder's Python files there by the folder's name, which processes side by side have in common.
os.environ["HF_MODULES_CACHE"] = os.path.join(os.environ["XDG_CACHE_HOME"], "modules")

NO_SKIP = os.environ.get("WHET_NO_SKIP", "") not in ("", "0")


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`compare` without the two processes that tell the memory of either side: each imports torch anew, which takes
    seconds. tests/measure/test_speed.py starts one in every run; in `make test-all` all of them are real."""
    if not WHOLE:
        told = {"load_seconds": 1.0, "peak_bytes": 1 << 28, "before_bytes": 1 << 27}
        monkeypatch.setattr(importlib.import_module("whet.measure.compare"), "footprint", lambda *_, **__: dict(told))


@pytest.fixture(autouse=True)
def llama_cpp_in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are tried and proved in llama.cpp without the processes that keep its crashes apart, each of which imports
    torch anew. Tests marked `children` start them."""
    running, probe = (sys.modules.get(f"whet.{name}") for name in ("formats.running", "engines.probe"))
    if request.node.get_closest_marker("children"):
        return

    def here(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        if running is not None and code == running._CODE:
            running.answer(*arguments)
        return subprocess.CompletedProcess([], 0, "", "")

    for module in (running, probe):
        if module is not None:
            monkeypatch.setattr(module, "run_python", here)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is left to another run, and `gpu` tests where there is no CUDA device."""
    left = left_out(items)
    if wanting := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        left += [] if torch.cuda.is_available() else wanting
    if left:
        config.hook.pytest_deselected(items=left)
        gone = set(left)
        items[:] = [item for item in items if item not in gone]


def _fail_skipped(report: Any) -> None:
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and WHET_NO_SKIP forbids it: {report.longrepr}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    _fail_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _fail_skipped(report)
    return report
