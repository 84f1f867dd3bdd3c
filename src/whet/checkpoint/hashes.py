"""SHA-256 of files that did not change since they were hashed last, from a cache in the user's own folder.

The cache is `whet/hashes.json` in XDG_CACHE_HOME, or in ~/.cache. A file counts as unchanged while size, inode and both
of its times (nanoseconds; the second one is set by no program) are what they were. A cache that cannot be read or
written, or that holds anything else, is as good as none.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from whet.checkpoint.files import sha256
from whet.strict import parse_json

_MOST = 4096  # files that are remembered; those that were hashed last stay
_LARGEST = 4 << 20  # bytes of a cache that is read
# A file that is written again within one tick of the file system's clock has the same times. Coarse clocks tick once in
# two seconds, so what was written since then is hashed again.
_TICK = 2e9

Stamp = list[int]


class Hashes:
    """SHA-256 of files, each hashed once until it changes."""

    def __init__(self) -> None:
        self._file = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whet" / "hashes.json"
        self._known = self._read()
        self._new: dict[str, Any] = {}

    def unknown(self, file: Path) -> int:
        """Bytes that `of` would have to read."""
        return 0 if self._remembered(file) else file.stat().st_size

    def of(self, file: Path, *, again: bool = False) -> str:
        """SHA-256 of a file, hexadecimal. again: read it whatever the cache says."""
        if not again and (known := self._remembered(file)) is not None:
            return known
        before, now = _stamp(file), time.time_ns()
        digest = sha256(file)
        if _stamp(file) == before and max(before[2:]) < now - _TICK:
            self._new[os.path.realpath(file)] = {"stamp": before, "sha256": digest}
        return digest

    def keep(self) -> None:
        """Write down what is new, for the next process. Others may have done so since this one read the cache."""
        if not self._new:
            return
        known = {name: entry for name, entry in self._read().items() if name not in self._new} | self._new
        kept = dict(list(known.items())[-_MOST:])
        made = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(json.dumps(kept), encoding="utf-8")
            made.replace(self._file)
        except OSError:
            made.unlink(missing_ok=True) if made.parent.is_dir() else None

    def _remembered(self, file: Path) -> str | None:
        entry = self._new.get(os.path.realpath(file)) or self._known.get(os.path.realpath(file))
        return str(entry["sha256"]) if entry is not None and entry["stamp"] == _stamp(file) else None

    def _read(self) -> dict[str, Any]:
        try:
            if self._file.stat().st_size > _LARGEST:
                return {}
            found = parse_json(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        entries = found.items() if isinstance(found, dict) else ()
        return {name: entry for name, entry in entries if _is_entry(entry)}


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("stamp"), list)


def _stamp(file: Path) -> Stamp:
    """What changes when a file does: size, inode, when it was written, and when anything of it changed."""
    about = file.stat()
    return [about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns]
