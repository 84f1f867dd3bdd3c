"""The looks of a gate: evidence is taken until every limit is passed, one is broken, or there is no more.

Nothing here knows what the evidence is; `whet.measure.evidence` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from whet.errors import GateError
from whet.measure.figures import ASPECTS, FIGURES, Figure, Source
from whet.measure.limits import weigh
from whet.measure.sequential import levels, schedule
from whet.messages import Message, listed

ERROR = 0.025  # of passing wrongly, and of failing wrongly: of the whole gate, over all its looks
# in each look the cheap ones first
SOURCES: tuple[Source, ...] = ("size", "memory", "text", "skills", "aspects", "speed")
_MOST_TIMES = 100  # as much evidence; to ask for more is no advice
_ENDED = {
    "text": Message("all of the text that was drawn is in"),
    "skills": Message("all of its questions are in"),
    "aspects": Message("all of its material is in"),
    "speed": Message("all rounds are in"),
}

Verdict = Literal["pass", "fail", "undecided", "not judged"]


@dataclass(frozen=True)
class Asked:
    """One limit: `figure` (of FIGURES), at what, of which skill; `named` where the skill was named with it."""

    figure: str
    at: float
    of: str = ""
    named: bool = False

    @property
    def name(self) -> str:
        """As a recipe spells it: `kl`, `retention.sums`."""
        return f"{self.figure}.{self.of}" if self.of else self.figure

    @property
    def about(self) -> Figure:
        """The row of the table of figures."""
        return (FIGURES | ASPECTS)[self.figure]


@dataclass(frozen=True)
class Measured:
    """A figure as far as it is known. exact: it has no error. missing: why there is no value, or no interval."""

    value: float | None
    interval: Sequence[float] | None = None
    exact: bool = False
    missing: str = ""


class Evidence(Protocol):
    """One source of figures. `of` is a skill, or '' where the source has no parts. fewest: units of a first look."""

    fewest: int

    def units(self, of: str) -> int:
        """How many there are to be had."""

    def take(self, wanted: Mapping[str, int]) -> None:
        """Measure until so many units of each are in. Raises GateError where the lighter model computes nothing."""

    def figure(self, name: str, of: str, low: float, high: float) -> Measured:
        """A figure of what is in, its interval with error `low` at the lower end and `high` at the upper end."""

    def used(self) -> dict[str, int]:
        """What is in, as a result counts it."""


@dataclass
class Judging:
    """One limit and what is known of it. counts: units that are in at each look. passing, failing: the one-sided error
    of each look on either side. look: the number of the one that decided it, from 1."""

    asked: Asked
    evidence: Evidence
    counts: list[int]
    passing: list[float]
    failing: list[float]
    measured: Measured | None = None
    verdict: Verdict = "undecided"
    look: int | None = None
    why: str = ""
    open: bool = field(default=True)

    def judge(self, number: int) -> None:
        """Measure and weigh what is in at look `number`, from 0."""
        errors = self.failing[number], self.passing[number]
        if not self.asked.about.upper:
            errors = errors[::-1]
        found = self.measured = self.evidence.figure(self.asked.figure, self.asked.of, *errors)
        if found.value is None:
            self.why = found.missing
        elif found.interval is None and not found.exact:
            self.why = Message("{value:.4g} has no error bar: {missing}", value=found.value, missing=found.missing)
        else:
            about, at = self.asked.about, self.asked.at
            verdict, self.why = weigh(about, at, found.value, found.interval, exact=found.exact, bar="")
            if verdict in ("pass", "fail"):
                self.decide(verdict, number)  # type: ignore[arg-type]

    def decide(self, verdict: Verdict, number: int) -> None:
        """It is decided at look `number`, from 0, and is not looked at again."""
        self.verdict, self.look, self.open = verdict, number + 1, False

    def close(self, broken: str) -> None:
        """There are no more looks: because the limit named `broken` is, or because there is no more evidence."""
        if not self.open:
            return
        found, self.open = self.measured, False
        if broken:
            why = self.why or Message("not measured")
            self.why = Message("{why}; {broken} was broken first", why=why, broken=broken)
        elif found is not None and found.value is None and self.asked.figure == "retention" and not self.asked.named:
            self.verdict = "not judged"
        elif self.asked.about.source in _ENDED:
            ended = _ENDED[self.asked.about.source]
            self.why = Message("{why}, and {ended}{more}", why=self.why, ended=ended, more=self._more())

    def _more(self) -> str:
        """How much evidence would tell if the figure stays: an interval shrinks with the root of it."""
        found, at = self.measured, self.asked.at
        if found is None or found.value is None or found.interval is None or found.value == at:
            return ""
        end = found.interval[0] if found.value > at else found.interval[1]
        times = ((end - found.value) / (at - found.value)) ** 2
        return Message(": about {times:.1f} times as much would tell", times=times) if times < _MOST_TIMES else ""

    def record(self) -> dict[str, Any]:
        """As the result of a gate has it."""
        value, interval = (self.measured.value, self.measured.interval) if self.measured else (None, None)
        return {
            "figure": self.asked.name,
            "of": self.asked.of,
            "at": self.asked.at,
            "value": value,
            "interval": None if interval is None else list(interval),
            "verdict": self.verdict,
            "look": self.look,
            "reason": self.reason(),
        }

    def reason(self) -> Message:
        """Why the verdict is what it is, in a sentence."""
        what = listed([self.asked.name, self.asked.about.meaning], ": ")
        if self.why.endswith("."):
            return Message("{what}: {why}", what=what, why=self.why)
        return Message("{what}: {why}.", what=what, why=self.why)


def judgings(asked: Sequence[Asked], evidence: Callable[[Source], Evidence]) -> list[Judging]:
    """Every limit with its looks. Passing has the whole error, failing has it divided by the limits with an error."""
    unsure = sum(each.about.source not in ("size", "memory") for each in asked)
    found = []
    for each in asked:
        source = evidence(each.about.source)
        counts = schedule(source.units(each.of), source.fewest)
        failing = levels(counts, ERROR / max(1, unsure))
        found.append(Judging(each, source, counts, levels(counts, ERROR), failing))
    return found


def take_looks(judging: Sequence[Judging], on_look: Callable[[int, list[str]], None]) -> None:
    """Look until it is decided. on_look: called after each with its number, from 1, and the names that it decided."""
    for number in range(max(len(each.counts) for each in judging)):
        before = [each for each in judging if each.open]
        for source in SOURCES:
            mine = [each for each in before if each.asked.about.source == source and number < len(each.counts)]
            if mine and not any(each.verdict == "fail" for each in judging):
                _take(mine, number)
        on_look(number + 1, [each.asked.name for each in before if not each.open])
        if any(each.verdict == "fail" for each in judging) or not any(each.open for each in judging):
            break
    broken = next((each.asked.name for each in judging if each.verdict == "fail"), "")
    for each in judging:
        each.close(broken)


def _take(mine: Sequence[Judging], number: int) -> None:
    """Take the units of look `number` for limits on one source, and judge them."""
    try:
        mine[0].evidence.take({each.asked.of: each.counts[number] for each in mine})
    except GateError as error:  # the lighter model gives numbers that are not finite
        for each in mine:
            each.why = error.message
            each.decide("fail", number)
        return
    for each in mine:
        each.judge(number)


def conclude(judging: Sequence[Judging]) -> tuple[Literal["pass", "fail", "undecided"], Message]:
    """The verdict of the gate, and a sentence that says why."""

    def those(verdict: Verdict) -> list[Judging]:
        return [each for each in judging if each.verdict == verdict]

    passed, failed, open_ = those("pass"), those("fail"), those("undecided")
    if failed:
        others = ", ".join(each.asked.name for each in failed[1:])
        also = Message(" Also broken: {names}.", names=others) if others else ""
        return "fail", Message("{reason}{also}", reason=failed[0].reason(), also=also)
    if open_ or not passed:
        first, *rest = open_ or judging
        also = Message(" Also open: {names}.", names=", ".join(each.asked.name for each in rest)) if rest else ""
        return "undecided", Message("Not enough evidence: {reason}{also}", reason=first.reason(), also=also)
    return "pass", passed[0].reason() if len(passed) == 1 else Message("All {count} limits hold.", count=len(passed))
