"""The machine that is measured: its processor and packages, what its memory gives, and where measurements are kept.

A measurement holds as long as processor, flags, cores, packages and the model's shapes are the same: their hash is the
name of its file in the user's cache folder. A file that is missing, broken or cannot be written only costs time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

import whet
from whet.checkpoint import write_json
from whet.checkpoint.memory import available_memory
from whet.errors import WhetError

_CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("torch", "transformers", "llama-cpp-python", "onnxruntime", "openvino")
# What else is measured, or how, makes what was kept before useless.
_VERSION = 2
_STREAM_BYTES = 1 << 28  # of each of the triad's three arrays: several times what caches hold
_STREAM_ROUNDS = 5


def cores() -> int:
    """Logical processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_limit() -> int:
    """The most threads that are worth trying: OMP_NUM_THREADS, where the user set it, or the cores."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(cores(), int(said)) if said.isdigit() and int(said) > 0 else cores()


def machine() -> dict[str, Any]:
    """`processor`, `flags` (a hash of what instructions it has), `cores`, `threads` (the most that are tried), `system`
    and `packages` with their versions, None for one that is not installed."""
    name, flags = platform.processor() or platform.machine(), ""
    if _CPUINFO.is_file():
        lines = dict(
            (key.strip(), value.strip())
            for key, colon, value in (line.partition(":") for line in _CPUINFO.read_text().splitlines())
            if colon
        )
        name = lines.get("model name") or lines.get("Processor") or name
        flags = lines.get("flags") or lines.get("Features") or ""
    return {
        "processor": name,
        "flags": hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:16],
        "cores": cores(),
        "threads": thread_limit(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cache_folder() -> Path:
    """Where measurements are kept: `whet/hardware` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whet" / "hardware"


def cache_file(what: str, about: Mapping[str, Any]) -> Path:
    """The file that keeps `what` was measured of shapes that `about` describes, on this machine as it is."""
    key = {"version": _VERSION, "whet": whet.__version__, "machine": machine(), "what": what, "about": about}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / f"{what}-{name}.json"


def kept(file: Path) -> dict[str, Any] | None:
    """What `file` keeps, or None where there is none or it cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def keep(file: Path, value: Mapping[str, Any]) -> bool:
    """Keep a measurement, atomically; False where the folder cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, value)
    except (OSError, WhetError):
        return False
    return True


def bandwidth(threads: int) -> dict[str, float]:
    """Bytes a second that memory gives to `threads`: `triad` (a = b + s c, two arrays read and one written) and `read`
    (a sum, which is what decoding does to weights). Medians of rounds; the arrays are far larger than caches."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    count = min(_STREAM_BYTES, (available_memory() or 1 << 30) // 12) // 4
    a, b, c = (torch.ones(count) for _ in range(3))
    found: dict[str, list[float]] = {"triad": [], "read": []}
    try:
        for number in range(_STREAM_ROUNDS + 1):
            started = time.perf_counter()
            torch.add(b, c, alpha=3.0, out=a)
            middle = time.perf_counter()
            a.view(torch.int32).max()
            ended = time.perf_counter()
            if number:  # the first touches the pages
                found["triad"].append(12 * count / (middle - started))
                found["read"].append(4 * count / (ended - middle))
    finally:
        torch.set_num_threads(before)
    return {name: median(values) for name, values in found.items()}
