"""What stops the lighter model: the tests that are gathered together, and what is said where one of them decides."""

from __future__ import annotations

from dataclasses import dataclass

from whet.messages import Message
from whet.serving.evidence import Below, Worse

# Of the allowed error of the verdict `fail`.
PARTS = {"errors": 0.7, "agreement": 0.2, "feedback": 0.05, "manner": 0.05}


@dataclass
class Tests:
    """Evidence that is gathered together: of the whole roll-out, or of one step."""

    errors: Worse
    feedback: Worse
    manner: Worse
    agreement: Below

    @classmethod
    def new(cls, worse: float, agreement: float) -> Tests:
        """worse, agreement: as in `rollout.Rules`."""
        return cls(Worse(worse), Worse(worse), Worse(worse), Below(agreement, 1.0))

    def failing(self, error: float) -> Message | None:
        """What is worse than it may be, at this probability of saying so wrongly."""
        for name, part in PARTS.items():
            if getattr(self, name).evidence * error * part >= 1:
                return FAILURES[name]
        return None


FAILURES = {
    "errors": Message("its requests fail more often than the original's"),
    "agreement": Message("it agrees with the original less than it must"),
    "feedback": Message("its answers are rated down more often than the original's"),
    "manner": Message("its answers refuse, or change the language, more often than the original's"),
    "faults": Message("hard faults, one after the other"),
    "latency": Message("it is slower than the original, and its budget of slow requests is used up too fast"),
}
