"""What stops the lighter model: the tests that are gathered together, and what is said where one of them decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from whet.messages import Message
from whet.serving.evidence import Below, Worse
from whet.serving.rules import Rules

# Of the allowed error of the verdict `fail`.
PARTS = {
    "errors": 0.7,
    "agreement": 0.1,
    "shift": 0.05,
    "skills": 0.05,
    "feedback": 0.03,
    "manner": 0.03,
    "length": 0.02,
    "harmful": 0.02,
}


@dataclass
class Skill:
    """Answers of both models to questions of one skill: how many were right, and bets that more is lost than may be."""

    test: Below
    count: int = 0
    original: int = 0
    lighter: int = 0
    evidence: float = 1.0


@dataclass
class Skills:
    """Answers to questions drawn at random, so that the hypothesis is about all questions of a skill: the lighter model
    loses no more of them than it gains, and `lost`. lost: a share of the questions."""

    names: tuple[str, ...]
    lost: float
    found: dict[str, Skill] = field(init=False)
    evidence: float = 0.0  # against the worst one, for so many skills: each had that part of the wealth to bet with

    def __post_init__(self) -> None:
        self.found = {name: Skill(Below(-self.lost, 1.0)) for name in self.names}

    def add(self, skill: str, original: bool, lighter: bool) -> None:
        one = self.found[skill]
        one.count += 1
        one.original += original
        one.lighter += lighter
        one.test.add(float(lighter) - float(original))
        one.evidence = one.test.evidence
        self.evidence = max(one.evidence for one in self.found.values()) / len(self.found)

    @property
    def worst(self) -> str:
        """The skill with the most evidence against it."""
        return max(self.found, key=lambda name: self.found[name].evidence)

    def missing(self, each: int) -> int:
        """Questions until every skill has so many."""
        return sum(max(0, each - one.count) for one in self.found.values())

    def told(self) -> list[dict[str, Any]]:
        """Of each skill: questions asked, and how many either model answered rightly."""
        return [
            {"skill": name, "count": one.count, "original": one.original, "lighter": one.lighter}
            for name, one in self.found.items()
        ]


@dataclass
class Tests:
    """Evidence that is gathered together: of the whole roll-out, or of one step."""

    errors: Worse
    feedback: Worse
    manner: Worse
    length: Worse
    agreement: Below
    shift: Below
    skills: Skills
    harmful: Below

    @classmethod
    def new(cls, rules: Rules, skills: tuple[str, ...]) -> Tests:
        promised = 1.0 if rules.harmful is None else rules.harmful
        return cls(
            errors=Worse(rules.worse),
            feedback=Worse(rules.worse),
            manner=Worse(rules.worse),
            length=Worse(rules.worse),
            agreement=Below(rules.agreement, 1.0),
            shift=Below(-rules.shift, 0.0),
            skills=Skills(skills, rules.lost),
            harmful=Below(-promised, 0.0),
        )

    def failing(self, error: float, names: Iterable[str] = PARTS) -> Message | None:
        """What of these is worse than it may be, at this probability of saying so wrongly."""
        for name in names:
            if getattr(self, name).evidence * error * PARTS[name] >= 1:
                return FAILURES[name] if name != "skills" else _lost(self.skills)
        return None


FAILURES = {
    "errors": Message("its requests fail more often than the original's"),
    "agreement": Message("it agrees with the original less than it must"),
    "shift": Message("it is more or less sure of the original's tokens than it may be"),
    "feedback": Message("its answers are rated down more often than the original's"),
    "manner": Message("its answers refuse, or change the language, more often than the original's"),
    "length": Message("its answers do not come to an end more often than the original's"),
    "harmful": Message("escalation lets more harmful flips through than it promised"),
    "faults": Message("hard faults, one after the other"),
    "latency": Message("it is slower than the original, and its budget of slow requests is used up too fast"),
}


def _lost(skills: Skills) -> Message:
    name = skills.worst
    one = skills.found[name]
    return Message(
        "of {count} questions of {skill} it answers {lighter} rightly, the original {original}",
        count=one.count,
        skill=name,
        lighter=one.lighter,
        original=one.original,
    )
