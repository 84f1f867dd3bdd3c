"""What is watched while a model learns from text of its own: a model that feeds on itself may narrow down to a few
phrases, which held-out loss tells late."""

from __future__ import annotations

from typing import Any

from whet.messages import Message

# Against the teacher on the same text, and against the first text of its own: what is less is a collapse, where it is
# so in as many steps behind each other.
ENTROPY, DISTINCT, STEPS = 0.5, 0.5, 3


class Watch:
    """Entropy, length and distinct runs of what was written in each step, and whether it has collapsed."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.narrow = 0
        self.now: dict[str, float] = {}

    def look(self, entropy: float, teacher: float, distinct: float, length: float, **more: float) -> None:
        """Of the text of a step. entropy: the student's mean on it, and the `teacher`'s. distinct: share of runs of
        tokens that are different ones. length: tokens of a text, the mean."""
        self.now = {"entropy": entropy, "teacher_entropy": teacher, "distinct": distinct, "length": length, **more}
        self.first = distinct if self.first is None else self.first
        narrow = entropy < ENTROPY * teacher or distinct < DISTINCT * self.first
        self.narrow = self.narrow + 1 if narrow else 0

    def told(self) -> dict[str, float]:
        """What the step's line of metrics has of it, told once."""
        told, self.now = self.now, {}
        return told

    def collapsed(self, step: int) -> Message | None:
        """What to say where it has."""
        if self.narrow < STEPS:
            return None
        return Message(
            "what the student writes has collapsed after {step} steps (too few different words, or too sure of them): "
            "training ends with the best weights so far",
            step=step,
        )

    def state(self) -> dict[str, Any]:
        """To go on from."""
        return {"first": self.first, "narrow": self.narrow}

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.first, self.narrow, self.now = state["first"], state["narrow"], {}
