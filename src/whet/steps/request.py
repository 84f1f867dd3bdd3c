"""What a step of a recipe is handed, and what there is to know of a kind of step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from whet.events import OnEvent
from whet.measure.items import Item
from whet.steps.options import Options

State = Literal["dense", "rounded"]


@dataclass(frozen=True)
class Texts:
    """What was set aside for steps before the first one: documents to calibrate on (`solve`) and to verify on, None
    where the recipe names no text, and questions."""

    solve: Sequence[str] | None = None
    verify: Sequence[str] | None = None
    items: Sequence[Item] = ()


@dataclass(frozen=True)
class Request:
    """One step to be done: `source` is read, `out` written, or gone on with where a stopped run lies there.

    dry_run: check everything that can be checked and return `memory`, `disk` (bytes) and `seconds`, writing nothing.
    original: the folder that the recipe began with.
    """

    source: Path
    out: Path
    options: Any
    texts: Texts
    seed: int
    device: str
    on_event: OnEvent
    dry_run: bool = False
    original: Path | None = None


@dataclass(frozen=True)
class Craft:
    """One kind of step.

    reads: the states of a folder that it takes. gives: the state it leaves the model in; None where it writes no model
    (a file, a measurement). keeps: whether it leaves the state as it found it. run: does it, and returns what a person
    wants to know, as plain JSON. check: raises UsageError for options that cannot be, without a model. after: raises it
    for options that cannot follow those of the last step that changed the model (None: the original folder is read).
    halved: options that go half the way from the original folder, None where they have no such way.
    """

    reads: tuple[State, ...]
    gives: State | None
    run: Callable[[Request], dict[str, Any]]
    check: Callable[[Any], None] = lambda options: None
    after: Callable[[Any, Options | None, Path], None] = lambda options, before, original: None
    halved: Callable[[Any, Path], Options | None] = lambda options, original: None
    keeps: bool = False


def with_texts(options: dict[str, Any], texts: Texts) -> dict[str, Any]:
    """A step's options with the recipe's text where the step names none of its own."""
    if options.get("text") is None and texts.solve is not None:
        return options | {"text": list(texts.solve), "eval_text": list(texts.verify or ()) or None, "chat": False}
    return options
