"""What a person has to know of how a recipe's run ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whet.messages import Message

_ENDED = {"stopped": Message("stopped"), "undecided": Message("undecided"), "skipped": Message("skipped")}


def ended_notes(ended: Sequence[Mapping[str, Any]], nothing: bool) -> list[Message]:
    """A note for each step that did not end as it was asked for, and where nothing was kept at all."""
    notes = []
    for end in ended:
        if end["outcome"] in _ENDED:
            notes.append(
                Message(
                    "step {number}, {craft}: {outcome}, tries: {count}. {reason}",
                    number=end["step"],
                    craft=end["craft"],
                    outcome=_ENDED[end["outcome"]],
                    count=len(end["attempts"]),
                    reason=Message.read(end["attempts"][-1]["gate"]["reason"]),
                )
            )
        elif (schedule := end.get("schedule")) is not None and schedule["reached"] < schedule["asked"]:
            notes.append(
                Message(
                    "step {number}, {craft}: {reached:.1%} of {asked:.1%} was taken: {reason}",
                    number=end["step"],
                    craft=end["craft"],
                    reached=schedule["reached"],
                    asked=schedule["asked"],
                    reason=Message.read(schedule["reason"]),
                )
            )
    if nothing:
        notes.append(Message("nothing was kept: the original is the best model so far, and no folder was written"))
    return notes
