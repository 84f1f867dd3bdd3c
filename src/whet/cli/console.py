"""Where the command line prints: results on stdout, progress and everything a person may skip on stderr.

On a terminal progress is one live line, the whole way in one bar, with what is going on and the time left; elsewhere
plain lines, at most one in ten seconds. With `--json` stdout carries one JSON document and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from whet.cli.phrases import doing, duration, percent, say, sentence, size
from whet.events import Event
from whet.messages import Message, to_json

_PLAIN_EVERY = 10.0


def plain(value: Any) -> Any:
    """`value` as strict JSON can hold it: paths as text, not-a-number and infinities as null, messages as objects."""
    value = to_json(value) if isinstance(value, Message) else value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    """`text` with control characters, and those that turn the direction of writing, as JSON spells them: text of files
    could move the cursor, rename the window or hide what stands before it."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Printer(RichConsole):
    """A console of rich that escapes all text it is given, in cells of tables too."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(escaped(text), **how)


class Console:
    """One command's output; a context manager, so that the live line is gone however the command ends.

    resume: the folder that `whet resume` goes on with if the command is interrupted while it is being written; `again`:
    the command that goes on, if it is another one.
    """

    def __init__(self, as_json: bool = False, resume: Path | None = None, again: str = "") -> None:
        self.as_json, self.resume, self.again = as_json, resume, again or f"whet resume {resume}"
        # A pipe has no width of its own; 80 columns would fold tables.
        wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
        self.out = _Printer(file=sys.stdout, width=wide, highlight=False, soft_wrap=False)
        self.err = _Printer(file=sys.stderr, highlight=False, soft_wrap=True)
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._last: dict[str, float] = {}

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()
        if kind is KeyboardInterrupt:
            begun = self.resume is not None and (self.resume / ".whet").is_dir()
            self.line(say("stopped_resume", command=self.again) if begun else say("stopped"))

    def show(self, *parts: RenderableType) -> None:
        """Print for people; nothing under `--json`."""
        self._stop()
        if not self.as_json:
            for part in parts:
                self.out.print(part, markup=False)

    def raw(self, text: str) -> None:
        """Print text whose lines must stay as they are, such as YAML; nothing under `--json`."""
        self._stop()
        if not self.as_json:
            sys.stdout.write(escaped(text))

    def result(self, value: dict[str, Any]) -> None:
        """Print the JSON document; nothing without `--json`."""
        self._stop()
        if self.as_json:
            sys.stdout.write(escaped(json.dumps(plain(value), ensure_ascii=False, indent=2)) + "\n")

    def line(self, text: str) -> None:
        """One line on stderr, above the live line if there is one."""
        console = self._live.console if self._live else self.err
        console.print(text, markup=False)

    def on_event(self, event: Event) -> None:
        """The callback handed to the rooms below."""
        kind = event.get("event")
        if kind == "progress":
            self._progress(event)
        elif kind in ("note", "warning"):
            self.line(f"{say(kind)}: {sentence(event)}")
        elif kind == "plan":
            needs = {"time": duration(event["seconds"]), "memory": size(event["memory"]), "disk": size(event["disk"])}
            self.line(say("plan", **needs))

    def _progress(self, event: Event) -> None:
        stage, whole = event["stage"], event["whole"]
        rest = say("left", time=duration(event["seconds_left"])) if whole < 1 else ""
        if self.err.is_terminal:
            if self._live is None:
                fields = ("{task.fields[percent]}", "{task.description}", "{task.fields[rest]}")
                self._live = Progress(BarColumn(), *map(TextColumn, fields), console=self.err, transient=True)
                self._task = self._live.add_task("", total=1.0, percent="", rest="")
                self._live.start()
            told = {"completed": whole, "percent": percent(whole), "description": doing(event), "rest": rest}
            self._live.update(self._task, **told)
            return
        now = time.monotonic()
        if event["done"] >= event["of"] or now - self._last.get(stage, -math.inf) >= _PLAIN_EVERY:
            self._last[stage] = now
            self.line(", ".join([percent(whole), doing(event), *([rest] if rest else [])]))

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
