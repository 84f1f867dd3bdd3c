"""Progress as data: long work calls back with small dicts, and only the command line prints.

An event is `{"event": name, ...}`. Names in use: `plan` (what will be done, with bytes and estimates), `progress`
(`stage`, `done`, `of`, `seconds_left`), `look` (a gate has looked for the `look`-th time and `decided` the limits of
these names), `note` (one line a person should read), `warning` (the same, about harm).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from whet.messages import Message, to_json

Event = dict[str, Any]
OnEvent = Callable[[Event], None]


def note_event(message: Message) -> Event:
    """The event `note`: beside the English `message` the `template` and `values` it was made of."""
    return {"event": "note", **to_json(message)}


def ignore(event: Event) -> None:
    """The default callback: nobody is listening."""


class Stage:
    """Emits `progress` events with the time left, estimated from the steps done so far.

    `of` is the number of steps, `skipped` those an earlier run had done (they tell nothing of the speed).
    """

    def __init__(self, on_event: OnEvent, name: str, of: int, skipped: int = 0) -> None:
        self.on_event, self.name, self.of, self.skipped, self.done = on_event, name, of, skipped, skipped
        self.started = time.monotonic()

    def step(self, **more: Any) -> None:
        """One step is done; `more` goes into the event as it is."""
        self.done += 1
        elapsed = time.monotonic() - self.started
        left = elapsed / (self.done - self.skipped) * (self.of - self.done)
        self.on_event(
            {"event": "progress", "stage": self.name, "done": self.done, "of": self.of, "seconds_left": left, **more}
        )
