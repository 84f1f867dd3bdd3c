"""How much memory is free, and whether a model fits into it as a whole."""

from __future__ import annotations

from pathlib import Path

from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from whet.messages import Message

# Loading needs the weights and the largest of them once more; the cache and activations of a few sequences come on top.
_ROOM = 1.5


def available_memory() -> int | None:
    """Bytes of memory free for use, or None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def lacking(checkpoint: Checkpoint) -> Message | None:
    """How much memory a model needs as a whole to write text, and how much is free; None where that is enough."""
    free, needs = available_memory(), int(checkpoint.nbytes * _ROOM)
    if free is None or needs <= free:
        return None
    return Message(
        "needs about {needs:.1f} GB of memory for that and {free:.1f} GB are free", needs=needs / 1e9, free=free / 1e9
    )


def check_fits(checkpoint: Checkpoint) -> None:
    """Raises UsageError asking for text where the model does not fit in memory to write any."""
    if why := lacking(checkpoint):
        raise UsageError(
            "No text was given. {model} could write its own, but {why}. Give --text FILE (txt, jsonl, parquet or hub "
            "data) in the languages the model is used in, or --solver nearest, which needs none.",
            model=checkpoint.path.name,
            why=why,
        )
