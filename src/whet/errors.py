"""What whet raises when the user can do something about it.

Every message is one paragraph that names the thing, the cause and the remedy. The class carries the exit code the
command line ends with: 0 pass, 1 internal error, 2 usage, 3 environment, 4 inconclusive, 5 gate failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WhetError(Exception):
    """Base of all errors whet raises on purpose."""

    exit_code = 1


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`' Did you mean X?'` for the nearest known name, or `''`.

    Compared without regard to case, so that `w4a16` finds `W4A16`.
    """
    names = list(known)
    lowered = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f" Did you mean {lowered[close[0]]}?" if close else ""
