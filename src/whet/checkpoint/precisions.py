"""Which precisions a folder has, where it has several."""

from __future__ import annotations

from whet.checkpoint.folder import Checkpoint
from whet.errors import UsageError


def check_precision(checkpoint: Checkpoint, precision: int | None) -> None:
    """Raises UsageError for a precision that the folder does not have."""
    if precision is None:
        return
    known = precisions_in(checkpoint)
    if not known:
        raise UsageError(
            "{folder} has one precision alone, so there is none to choose. Leave precision out, or make a folder of "
            "several: whet compress --for whet --precisions 8,4,2.",
            folder=checkpoint.path,
        )
    if precision not in known:
        raise UsageError(
            "{folder} has no precision of {bits} bits. Choose one of {known}.",
            folder=checkpoint.path,
            bits=precision,
            known=", ".join(map(str, known)),
        )


def precisions_in(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The bits that a folder of several precisions has, the most first; none of any other."""
    return tuple(map(int, (checkpoint.whet or {}).get("levels") or ()))
