"""How much memory is free."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int | None:
    """Bytes of memory free for use, or None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
