"""What a run has finished, so that it can be killed anywhere and go on.

`journal.jsonl` in a run's folder has one line per finished unit, written after the unit's file has its final name. A
unit without a line is done again and gives the same bytes.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whet.checkpoint import disk_errors, sha256, sync_folder
from whet.errors import UsageError


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run folder against another process; the system lets go however this one ends. Raises UsageError."""
    with disk_errors(run), (run / "lock").open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                "{folder} is being written by another whet at this moment. Wait for it, or name another folder.",
                folder=run.parent,
            ) from error
        yield


def is_locked(run: Path) -> bool:
    """Whether a process holds the run folder now."""
    try:
        with (run / "lock").open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Journal:
    """Append-only lines `{"unit": name, "file": …, "sha256": …, …}` in `folder/journal.jsonl`.

    `entries` are the last line of each unit. A unit whose file is to be replaced has a line of what it will be before
    that, and whichever of its lines tells of the file that is there counts.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"
        self.entries: dict[str, dict[str, Any]] = {}
        self._lines: dict[str, list[dict[str, Any]]] = {}
        whole = 0
        if self.path.exists():
            data = self.path.read_bytes()
            for line in data.splitlines(keepends=True):
                # a line without its end was being written when the run died
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = json.loads(line)
                    self._add(entry)
                except (ValueError, TypeError, KeyError):
                    break  # a power cut may leave zeros where a line was; what follows is done again
                whole += len(line)
            if whole < len(data):
                with self.path.open("rb+") as stream:
                    stream.truncate(whole)

    def finished(self, unit: str, folder: Path) -> dict[str, Any] | None:
        """The line of `unit` if its file in `folder` is there, whole and unchanged."""
        for entry in reversed(self._lines.get(unit, [])):
            file = folder / entry["file"]
            if file.is_file() and sha256(file) == entry["sha256"]:
                self.entries[unit] = entry
                return entry
        return None

    def record(self, unit: str, file: Path, now: Path | None = None, **more: Any) -> dict[str, Any]:
        """Note that `unit` is finished and lies in `file`, or will when `now` is renamed to it; returns the line."""
        made = file if now is None else now
        entry = {"unit": unit, "file": file.name, "sha256": sha256(made), "bytes": made.stat().st_size, **more}
        with disk_errors(self.path):
            new = not self.path.exists()
            with self.path.open("ab") as stream:
                stream.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())
                stream.flush()
                os.fsync(stream.fileno())
            if new:
                sync_folder(self.path.parent)
        self._add(entry)
        return entry

    def _add(self, entry: dict[str, Any]) -> None:
        self.entries[entry["unit"]] = entry
        self._lines.setdefault(entry["unit"], []).append(entry)
