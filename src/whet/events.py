"""Progress as data: long work calls back with small dicts, and only the command line prints.

An event is `{"event": name, ...}`. Names in use: `plan` (what will be done, with bytes and estimates), `progress` (what
is going on: `stage`, `done`, `of`, sometimes `unit`; and how far the whole verb is: `whole`, from 0 to 1, which never
falls and ends at 1, and `seconds_left`), `look` (a gate has looked for the `look`-th time and `decided` the limits of
these names), `note` (one line a person should read), `warning` (the same, about harm).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from whet.messages import Message, to_json

Event = dict[str, Any]
OnEvent = Callable[[Event], None]

_TRUST = 0.02  # of a whole: after so much of it, what was measured counts as much as what was estimated


def note_event(message: Message) -> Event:
    """The event `note`: beside the English `message` the `template` and `values` it was made of."""
    return {"event": "note", **to_json(message)}


def without_plan(tell: OnEvent) -> OnEvent:
    """`tell` without the plan of a part of the work, where that of the whole says more."""

    def filtered(event: Event) -> None:
        if event["event"] != "plan":
            tell(event)

    return filtered


def ignore(event: Event) -> None:
    """The default callback: nobody is listening."""


class Stage:
    """Emits `progress` events of one loop, as if it were the whole; a `Way` makes more of them.

    `of` is the number of steps, `skipped` those an earlier run had done (they tell nothing of the speed). sizes: how
    long steps take beside each other, where not all take as long.
    """

    def __init__(
        self, on_event: OnEvent, name: str, of: int, skipped: int = 0, sizes: Sequence[float] | None = None
    ) -> None:
        self.on_event, self.name, self.of, self.skipped, self.done = on_event, name, of, skipped, skipped
        self._ends = [0.0, *itertools.accumulate([1.0] * of if sizes is None else sizes)]
        self.start()

    def start(self) -> None:
        """It begins now, where something else was done since it was made."""
        self.started = time.monotonic()

    def step(self, **more: Any) -> None:
        """One step is done; `more` goes into the event as it is."""
        self.reach(self.done + 1, **more)

    def reach(self, done: int, **more: Any) -> None:
        """So many steps are done; nothing is said where they were before."""
        if done <= self.done:
            return
        self.done = done
        elapsed = time.monotonic() - self.started
        begun, now, end = (self._ends[step] for step in (self.skipped, done, self.of))
        told = {"stage": self.name, "done": done, "of": self.of, "whole": now / end}
        left = elapsed / (now - begun) * (end - now)
        self.on_event({"event": "progress", **told, "seconds_left": left, **more})


class Part(NamedTuple):
    """One of those that follow each other in a way: the stage, and the seconds it is estimated to take."""

    name: str
    seconds: float


class Way:
    """A callback that makes one way of the stages that follow each other: it passes events on, and those of progress
    with the share of the whole that is done and the time left of it.

    parts: in their order, as far as it is known; names may come again. A stage belongs to the next part of its name,
    and what was to come before that turned out not to be needed, or was done by an earlier run. A stage that begins
    again is the next part of its name too; where none is left, one more comes in between, as long as the last. Ways may
    lie in each other: `part` is the callback of what has stages of its own.

    What parts take is corrected by what was measured: of a name, and of those not measured yet by all the others.
    timed: estimates are of seconds on this machine, which count until enough was measured; else they only compare
    parts with each other.
    """

    def __init__(self, on_event: OnEvent, parts: Iterable[Part], timed: bool = True) -> None:
        self.on_event = on_event
        self._ahead = [Part(name, max(seconds, 1e-6)) for name, seconds in parts]
        self._known = {part.name: part for part in self._ahead}
        self._prior = _TRUST * sum(part.seconds for part in self._ahead) if timed else 0.0
        self._now: Part | None = None
        self._done = 0.0  # share of the part that is under way
        self._start, self._span = 0.0, 0.0  # where in the whole that part begins, and how much of it it is
        self._whole = 0.0
        self._paces: dict[str, float] = {}  # measured seconds over estimated ones, by name
        self._weights: dict[str, float] = {}  # estimated seconds on which they were measured
        self._heard = self._begun = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Pass on an event of the stage that it names."""
        self._pass(event, event.get("stage", ""))

    def part(self, name: str) -> OnEvent:
        """The callback of a part, whatever stages it has."""
        return lambda event: self._pass(event, name)

    def _pass(self, event: Event, name: str) -> None:
        if event["event"] != "progress":
            self.on_event(event)
            return
        left = None
        if self._enter(name, event["whole"]):
            left = event["seconds_left"]
            self._measure(event["whole"], left)
        self._heard = time.monotonic()
        self.on_event(event | {"whole": self._whole, "seconds_left": self._seconds_left(left)})

    def _enter(self, name: str, share: float) -> bool:
        """Go on to the part that a stage belongs to; False where it belongs to none."""
        place = next((i for i, part in enumerate(self._ahead) if part.name == name), None)
        again = share < self._done or (self._done >= 1 and place is not None)
        if self._now is not None and self._now.name == name and not again:
            return True
        if place is None:
            if name not in self._known:
                return False
            place = 0
            self._ahead.insert(0, self._known[name])
        at = self._start + self._span
        every = sum(map(self._predicted, self._ahead))
        skipped = sum(map(self._predicted, self._ahead[:place]))
        self._start = at + (1 - at) * skipped / every
        self._span = (1 - at) * self._predicted(self._ahead[place]) / every
        self._now, self._ahead, self._done = self._ahead[place], self._ahead[place + 1 :], 0.0
        self._begun = self._heard
        return True

    def _measure(self, share: float, left: float) -> None:
        """The part under way is done to `share`, and takes `left` seconds more."""
        assert self._now is not None
        name, seconds = self._now
        if share < 1:
            self._paces[name] = max(left, 1e-9) / ((1 - share) * seconds)
        elif not self._done:
            self._paces[name] = max(time.monotonic() - self._begun, 1e-9) / seconds
        self._weights[name] = self._weights.get(name, 0.0) + (share - self._done) * seconds
        self._done = share
        ended = share >= 1 and not self._ahead
        self._whole = 1.0 if ended else max(self._whole, self._start + self._span * share)

    def _predicted(self, part: Part) -> float:
        """Seconds that a part will take."""
        pace = self._paces.get(part.name)
        if pace is None:
            weights = sum(self._weights.values()) + self._prior
            logs = sum(weight * math.log(self._paces[name]) for name, weight in self._weights.items())
            pace = math.exp(logs / weights) if weights else 1.0
        return part.seconds * pace

    def _seconds_left(self, left: float | None) -> float:
        """left: of the part under way, where the stage that speaks is in it."""
        if left is None:
            left = 0.0 if self._now is None else (1 - self._done) * self._predicted(self._now)
        return left + sum(map(self._predicted, self._ahead))
