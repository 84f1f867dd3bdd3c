"""The state of a roll-out in SQLite: durable before it is applied, with every change kept."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from whet.errors import MachineError
from whet.messages import Message, to_json
from whet.serving.rollout import State, Status, Unreadable

_VERSION = 1


class Journal:
    """Implements `rollout.Store`. A second process cannot open the same file while this one has it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._broken = ""
        try:
            self._db = self._opened()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise MachineError(
                    "{file} is in use: another whet serve runs with this folder. End it, or name another folder with "
                    "--state.",
                    file=file,
                ) from error
            raise MachineError(
                "{file}: {error}. Check the path, and that you may read and write there.", file=file, error=error
            ) from error
        except sqlite3.DatabaseError as error:
            self._broken = str(error)
            file.replace(file.with_suffix(f".broken-{time.time_ns()}"))
            self._db = self._opened()

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.file, isolation_level=None, timeout=0.5, check_same_thread=False)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS states "
                "(number INTEGER PRIMARY KEY, at REAL, event TEXT, state TEXT, hash TEXT)"
            )
            db.execute("BEGIN EXCLUSIVE")
            db.execute("COMMIT")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def load(self) -> State | None:
        if self._broken:
            raise Unreadable(self._broken)
        try:
            row = self._db.execute("SELECT state, hash FROM states ORDER BY number DESC LIMIT 1").fetchone()
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error
        return None if row is None else _read(*row)

    def save(self, state: State, event: str) -> None:
        text = json.dumps({"version": _VERSION, **to_json(asdict(state))}, sort_keys=True)
        try:
            self._db.execute(
                "INSERT INTO states (at, event, state, hash) VALUES (?, ?, ?, ?)",
                (state.since, event, text, _hash(text)),
            )
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
        self._broken = ""

    def history(self) -> list[dict[str, Any]]:
        """What happened, oldest first: when, what, and the stage and status after it."""
        rows = self._db.execute("SELECT at, event, state FROM states ORDER BY number").fetchall()
        made = []
        for at, event, text in rows:
            state = json.loads(text)
            made.append({"at": at, "event": event, **{name: state[name] for name in ("stage", "status", "reason")}})
        return made

    def close(self) -> None:
        self._db.close()


def _read(text: Any, checked: Any) -> State:
    try:
        if _hash(text) != checked:
            raise ValueError("its checksum is another")
        found = json.loads(text)
        if found.pop("version") != _VERSION or found["status"] not in get_args(Status):
            raise ValueError("another version wrote it")
        reason = Message.read(found.pop("reason"))
        return State(reason=reason, **found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unreadable(str(error)) from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
