"""The place of what is written and not proved yet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whet.checkpoint import disk_errors


@contextmanager
def unproved(out: Path) -> Iterator[Path]:
    """A folder beside `out`, on its disk, for what may not have its name yet; removed at the end."""
    place = out.with_name(f".{out.name}.unproved")
    with disk_errors(out):
        shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
        place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
