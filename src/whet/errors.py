"""What whet raises when the user can do something about it.

Every message is one paragraph that names the thing, the cause and the remedy. The class carries the exit code the
command line ends with: 0 pass, 1 internal error, 2 usage, 3 environment, 4 inconclusive, 5 gate failed.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from whet.messages import Message

P = ParamSpec("P")
R = TypeVar("R")


class WhetError(Exception):
    """Base of all errors whet raises on purpose: `UsageError("{out} is a file. Name a folder.", out=out)`.

    `str()` gives English; `message` is what was said as a `Message`, `template` and `values` what it was made of.
    """

    exit_code = 1

    def __init__(self, template: str, /, **values: Any) -> None:
        self.message = template if isinstance(template, Message) else Message(template, **values)
        super().__init__(self.message)

    @property
    def template(self) -> str:
        return self.message.template

    @property
    def values(self) -> dict[str, Any]:
        return self.message.values


class UsageError(WhetError):
    """The input is wrong: a path, an option, a file's content, a model whet does not take."""

    exit_code = 2


class NotFiniteError(UsageError):
    """A model computes numbers that are not finite."""


class MachineError(WhetError):
    """The machine is in the way: disk full, folder not writable, too little memory, a package missing."""

    exit_code = 3


class GateError(WhetError):
    """A check that had to hold did not."""

    exit_code = 5


def machine_error(error: Exception) -> MachineError | None:
    """What the machine refused, where `error` of Python or PyTorch says that: memory, or an operation on a file."""
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return MachineError(
            "The machine has too little memory for this. Use less text at once (--samples, --window), end other "
            "programs, or take a machine with more memory."
        )
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return MachineError(
            "{file}: {error}. Check the path, and that you may read and write there.",
            file=error.filename,
            error=error.strerror,
        )
    return None


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """A function that is called from outside: what the machine refuses it is raised as a MachineError."""

    @functools.wraps(function)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (MemoryError, OSError, RuntimeError) as error:
            if (refused := machine_error(error)) is not None:
                raise refused from error
            raise

    return told


# as torch puts it, on the processor and on a GPU
_NO_MEMORY = ("can't allocate memory", "CUDA out of memory")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`' Did you mean X?'` for the nearest known name, or `''`.

    Compared without regard to case, so that `w4a16` finds `W4A16`. The first letter is seldom wrong: of two that are
    about as near it is the one that begins alike.
    """
    said, lowered = name.lower(), {n.lower(): n for n in known}

    def near(other: str) -> float:
        return difflib.SequenceMatcher(a=other, b=said).ratio() + 0.1 * (other[:1] == said[:1])

    close = difflib.get_close_matches(said, lowered, n=3, cutoff=0.5)
    return Message(" Did you mean {name}?", name=lowered[max(close, key=near)]) if close else ""
