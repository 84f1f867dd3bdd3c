"""`hardware`: what is fast on this machine, for a model's shapes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from whet import starter
from whet.checkpoint import Checkpoint
from whet.errors import verb
from whet.events import OnEvent, ignore, note_event
from whet.messages import Message, to_json
from whet.starter.shapes import write_standard
from whet.timing.advice import advice
from whet.timing.pairs import overview, seconds_of


@verb
def hardware(
    model: str | Path | None = None, *, fresh: bool = False, dry_run: bool = False, on_event: OnEvent = ignore
) -> dict[str, Any]:
    """Time every pair of runtime and format that can run here, decoding and prefill, batch 1.

    model: an original whose shapes are timed, a Llama of 134 million parameters unless given; no weight of it is read
    but by PyTorch, which runs it whole. What was measured is kept by processor, packages and shapes, and measured again
    with `fresh`. dry_run: only tell how long that takes.

    Returns `machine`, `bandwidth` (bytes a second by threads), `settings` (a token's time with more threads and with
    threads that spin, over one thread), `threads` (the best of them), `pairs` (`runtime`, `format`, `bits`, `decode`
    and `prefill` in tokens a second, `share` of what memory gives, `speedup` over the runtime's own 16 bits),
    `left_out`, and `advice`.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "standard" if model is None else Path(model)
        if model is None:
            write_standard(folder, starter.path())
        name = "standard" if model is None else Checkpoint(folder).path.resolve().name
        about = {"format": "whet.hardware", "version": 1, "model": name}
        estimate = seconds_of(folder)
        if dry_run:
            return {**about, "estimate": estimate}
        found = overview(folder, fresh, on_event)
    if found["cached"] is None and not found.pop("kept", True):
        on_event(note_event(Message("the measurement could not be kept: the cache folder cannot be written")))
    return {**about, **found, "advice": to_json(advice(found)), "seconds": time.monotonic() - started}
