"""One step of a recipe: tried, gated, kept by one rename or rolled back, and tried otherwise.

Of step 2, a `quantize`, the run's folder holds

    02-quantize.1/            what the first try writes, with a run folder of its own while it is made
    02-quantize.1.made.json   what the step told when it was finished
    02-quantize.1.gate.json   what the gate found
    02-quantize/              the try that was kept, renamed
    02-quantize.json          how the step ended

in this order, so that a run that was killed between any two of them goes on from the files alone.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whet.checkpoint import RUN, size_on_disk, sync_folder, write_json
from whet.events import OnEvent, note_event
from whet.messages import Message
from whet.recipe.schedule import Schedule
from whet.steps.crafts import CRAFTS
from whet.steps.options import Options
from whet.steps.request import Request

HALVINGS = 4  # of one step, at most


@dataclass(frozen=True)
class Planned:
    """A step as the recipe has it. on_fail: `stop`, `skip` or `halve`; tries: other options, the next best first.
    schedule: in what smaller steps it is done, None for all at once."""

    number: int
    craft: str
    options: Options
    gate: Mapping[str, float]
    on_fail: str
    tries: tuple[Options, ...]
    schedule: Schedule | None = None

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"{self.number:02d}-{self.craft}"

    def document(self) -> dict[str, Any]:
        """As a recipe spells it, every default filled in."""
        fail = {"try": [one.document() for one in self.tries]} if self.tries else self.on_fail
        gated: dict[str, Any] = {"gate": dict(self.gate), "on_fail": fail} if self.gate else {}
        if self.schedule is not None:
            gated["schedule"] = self.schedule.document()
        return {self.craft: self.options.document(), **gated}

    def attempts(self, original: Path) -> Iterator[Options]:
        """Options to try, one after another, while the gate does not hold."""
        yield self.options
        yield from self.tries
        options: Options | None = self.options
        for _ in range(HALVINGS if self.on_fail == "halve" else 0):
            options = CRAFTS[self.craft].halved(options, original)
            if options is None:
                return
            yield options


Judge = Callable[[Path, Mapping[str, float]], dict[str, Any]]


def try_step(
    step: Planned,
    folder: Path,
    original: Path,
    request: Callable[[Path, Options], Request],
    judge: Judge,
    keep_failed: Path | None,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Do a step, or what a killed run left of it; returns how it ended, as it is kept in `02-quantize.json`.

    folder: the run's. request: what a try with some options into a folder is handed. judge: measures a gate of what
    lies in a folder. keep_failed: where tries that are rolled back are kept, instead of removed.

    `outcome` is kept, skipped, stopped (the gate does not hold) or undecided (not enough evidence, which stops too).
    """
    ended = folder / f"{step.name}.json"
    if ended.is_file():
        return _read(ended)
    attempts: list[dict[str, Any]] = []
    adopted = folder / step.name
    for number, options in enumerate(step.attempts(original), 1):
        made = folder / f"{step.name}.{number}"
        place = adopted if adopted.is_dir() and not made.is_dir() else made
        told = once(folder / f"{made.name}.made.json", lambda: done(step.craft, request(made, options)))  # noqa: B023
        attempt = {"options": options.document(), "bytes": told["bytes"], "seconds": told["seconds"]}
        attempts.append(attempt)
        if step.gate:
            attempt["gate"] = once(folder / f"{made.name}.gate.json", lambda: judge(place, step.gate))  # noqa: B023
            reason = Message.read(attempt["gate"]["reason"])
            message = Message("step {number}, {craft}: {reason}", number=step.number, craft=step.craft, reason=reason)
            on_event(note_event(message))
        if not step.gate or attempt["gate"]["verdict"] == "pass":
            if not adopted.is_dir():
                made.replace(adopted)
                sync_folder(folder)
            return _end(ended, step, "kept", attempts, told["result"])
        roll_back(made, keep_failed)
    verdict = attempts[-1]["gate"]["verdict"]
    outcome = "skipped" if step.on_fail == "skip" else "stopped" if verdict == "fail" else "undecided"
    return _end(ended, step, outcome, attempts, {})


def done(craft: str, request: Request) -> dict[str, Any]:
    """Do a step once, or what a killed run left of it; what is told of it."""
    started = time.monotonic()
    if not (request.out / RUN).exists():
        # what lies there was finished, and the run killed before it was told of: it is done again, to the same bytes
        shutil.rmtree(request.out, ignore_errors=True)
    result = CRAFTS[craft].run(request)
    written = size_on_disk(request.out)["total"] if CRAFTS[craft].gives else _bytes(request.out)
    return {"result": _plain(result), "bytes": written, "seconds": time.monotonic() - started}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a person wants to know of a step: figures and notes, not every linear."""
    return {
        key: result[key] for key in ("kl", "top1", "retention", "notes", "loads_in", "check", "types") if key in result
    }


def roll_back(made: Path, keep_failed: Path | None) -> None:
    """Take a try away, or put it aside. May be repeated."""
    if keep_failed is not None and made.is_dir():
        keep_failed.mkdir(parents=True, exist_ok=True)
        made.replace(keep_failed / made.name)
    shutil.rmtree(made, ignore_errors=True)


def _end(
    file: Path, step: Planned, outcome: str, attempts: list[dict[str, Any]], result: Mapping[str, Any]
) -> dict[str, Any]:
    ended = {"step": step.number, "craft": step.craft, "outcome": outcome, "attempts": attempts, "result": dict(result)}
    write_json(file, ended)
    return ended


def once(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an earlier run found, or what is found now."""
    if not file.is_file():
        write_json(file, make())
    return _read(file)


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
