"""The roll-out: which share of users the lighter model serves, and what makes it grow or fall to nothing.

Pure: clock, random numbers and storage are given, and nothing here waits. The rules that hold whatever happens:
only a `pass` grows; a `fail` sets the weight to 0 at once; no traffic is `insufficient`, never `pass`; what a person
held or aborted is never raised by the program; a new state is stored before a higher weight is applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from whet.errors import UsageError
from whet.messages import Message, with_and
from whet.serving.boundaries import FAILURES, PARTS, Tests
from whet.serving.evidence import Below, level
from whet.serving.faults import Breaker, Burn
from whet.serving.rules import Rules

Status = Literal["running", "held", "failed", "aborted", "unknown"]
Verdict = Literal["pass", "fail", "inconclusive", "insufficient"]
ACTIONS = ("hold", "promote", "abort", "resume")
_NOTHING = Message("")
PROVEN = 1 / 0.05  # wealth at which something counts as proven


@dataclass(frozen=True)
class State:
    """What is stored. stage: 0 for Shadow, else the number of the step. pair: which two models; salt: of the hash."""

    pair: str
    salt: str
    stage: int = 0
    status: Status = "running"
    reason: Message = _NOTHING
    since: float = 0.0  # seconds since 1970, for people only

    def weight(self, steps: tuple[float, ...]) -> float:
        """Percent of users that the lighter model serves."""
        serving = self.status in ("running", "held") and 0 < self.stage <= len(steps)
        return steps[self.stage - 1] if serving else 0.0


class Unreadable(Exception):
    """There is a stored state, and it cannot be trusted."""


class Store(Protocol):
    """Where states outlive the process."""

    def load(self) -> State | None:
        """The last state, None if there never was one. Raises Unreadable."""

    def save(self, state: State, event: str) -> None:
        """Returns once `state` survives a crash. Raises OSError if it cannot."""


@dataclass
class Step:
    """What has come in since a step began."""

    began: float
    tests: Tests
    requests: int = 0
    pairs: int = 0
    start: int = 1  # how many times tests were started, this one included


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on."""

    verdict: Verdict
    reason: Message


@dataclass
class Controller:
    """Decides. All methods return at once.

    clock: seconds, never backwards. wall: seconds since 1970. draw: a random number in [0, 1).
    """

    rules: Rules
    store: Store
    pair: str
    salt: str
    clock: Callable[[], float]
    wall: Callable[[], float]
    draw: Callable[[], float]
    sample: float = 0.1
    skills: tuple[str, ...] = ()  # whose questions are asked of both models
    state: State = field(init=False)
    unsaved: str = ""  # the event whose state could not be stored
    whole: Tests = field(init=False)  # evidence of the whole roll-out
    step: Step = field(init=False)
    proof: Below = field(init=False)  # bets that agreement is above what would be a failure
    mean: tuple[int, float] = field(init=False)  # comparisons, and the sum of their agreement
    breaker: Breaker = field(init=False)
    burn: Burn = field(init=False)

    def __post_init__(self) -> None:
        fresh = State(self.pair, self.salt, since=self.wall())
        try:
            stored = self.store.load()
        except Unreadable as error:
            self.state = replace(fresh, status="unknown", reason=_unreadable(str(error)))
        else:
            if stored is not None and stored.pair == self.pair and stored.stage <= len(self.rules.steps):
                self.state = stored
            else:
                self.state = fresh
                self.store.save(fresh, "new")
        self._anew()

    # -- who serves --------------------------------------------------------------------------------------------------

    @property
    def weight(self) -> float:
        """Percent of users whom the lighter model serves now."""
        return self.state.weight(self.rules.steps)

    def lighter_serves(self, key: str) -> bool:
        """Whether the lighter model serves this user. A weight that grows only adds users."""
        return place(self.state.salt, key) < self.weight * 100

    def compares(self) -> bool:
        """Whether this request is answered by both. In Shadow all are."""
        active = self.state.status in ("running", "held")
        return active and (self.state.stage == 0 or self.draw() < self.sample)

    # -- what is seen ------------------------------------------------------------------------------------------------

    def served(
        self,
        lighter: bool,
        *,
        error: bool = False,
        hard: bool = False,
        times: tuple[float, float] | None = None,
        odd: bool | None = None,
        cut: bool | None = None,
    ) -> None:
        """A request was answered by this side, or should have been. hard: a fault of the engine, which is an error too.
        times: seconds to the first token and for each after it, of what was answered. odd: whether the answer refuses
        or changes the language, cut: whether it was as long as it may be and not at its end, if that was seen."""
        bad = error or hard
        for tests in (self.whole, self.step.tests):
            tests.errors.add(lighter, bad)
            if odd is not None:
                tests.manner.add(lighter, odd)
            if cut is not None:
                tests.length.add(lighter, cut)
        if lighter:
            self.step.requests += 1
            self.breaker.add(hard)
        if times is not None:
            self.burn.add(self.clock(), lighter, *times)
        if lighter:  # what the original does can only speak for the lighter model
            self._stop_if_failing("errors", "manner", "length")

    def compared(self, agreement: float, shift: float | None = None) -> None:
        """A request was compared. agreement: at what share of the places of the original's answer both models choose
        the same token. shift: how far the shares are apart that both give its tokens, in the mean, if they tell."""
        agreement = min(max(agreement, 0.0), 1.0)
        self.step.pairs += 1
        for tests in (self.whole, self.step.tests):
            tests.agreement.add(agreement)
            if shift is not None:
                tests.shift.add(-min(max(shift, 0.0), 1.0))
        self.proof.add(-agreement)
        self.mean = (self.mean[0] + 1, self.mean[1] + agreement)
        self._stop_if_failing("agreement", "shift")

    def not_compared(self) -> None:
        """The lighter model could not be asked about a request: a hard fault, though no user saw it."""
        self.breaker.add(True)
        self._stop_if_failing()

    def rated(self, lighter: bool, down: bool) -> None:
        """A user rated an answer of this side."""
        for tests in (self.whole, self.step.tests):
            tests.feedback.add(lighter, down)
        self._stop_if_failing("feedback")

    def asked(self, skill: str, original: bool, lighter: bool) -> None:
        """Both models answered a question of a skill: whether the original was right, and what a user of the lighter
        model would have got."""
        for tests in (self.whole, self.step.tests):
            tests.skills.add(skill, original, lighter)
            if self.rules.harmful is not None:
                tests.harmful.add(-float(original and not lighter))
        self._stop_if_failing("skills", "harmful")

    @property
    def questions(self) -> int:
        """Of each skill that this step takes at least."""
        return self.rules.questions if not self.state.stage else max(1, self.rules.questions // 10)

    # -- what is decided ---------------------------------------------------------------------------------------------

    def judge(self) -> Judgement:
        """The verdict on this step, now."""
        if self.state.status in ("failed", "aborted", "unknown"):
            return Judgement("fail", self.state.reason)
        if (failing := self._failing()) is not None:
            return Judgement("fail", failing)
        missing = self._missing()
        if missing:
            return Judgement("insufficient", Message("still to come: {missing}", missing=with_and(missing)))
        unproven = []
        if self.proof.evidence < PROVEN:
            unproven.append(Message("agreement with the original"))
        if self.state.stage and self.step.tests.errors.proven < PROVEN and self.weight < 100:
            unproven.append(Message("a rate of errors like the original's"))
        if unproven:
            return Judgement("inconclusive", Message("not proven yet: {unproven}", unproven=with_and(unproven)))
        return Judgement("pass", Message("everything holds"))

    def tick(self) -> Judgement:
        """Judge, and grow by a step if the verdict is `pass` and nobody holds it. To be called every few seconds."""
        if self.unsaved:
            self.store.save(self.state, self.unsaved)
            self.unsaved = ""
        self._stop_if_failing()
        judgement = self.judge()
        if judgement.verdict == "pass" and self.state.status == "running" and self.state.stage < len(self.rules.steps):
            self._to(replace(self.state, stage=self.state.stage + 1, reason=judgement.reason), "grow")
        return judgement

    def act(self, action: str) -> None:
        """What a person decides: hold, promote, abort or resume. Raises UsageError where it does not apply."""
        state = self.state
        stopped = state.status in ("failed", "aborted", "unknown")
        if action == "hold" and not stopped:
            self._to(replace(state, status="held", reason=Message("held by a person")), action)
        elif action == "abort":
            self._to(replace(state, status="aborted", reason=Message("aborted by a person")), action)
        elif action == "resume" and stopped:
            fresh = replace(state, stage=0, status="running", reason=Message("begun again by a person"))
            self._to(fresh, action)
        elif action == "resume":
            self._to(replace(state, status="running", reason=Message("resumed by a person")), action)
        elif action == "promote" and not stopped and state.stage < len(self.rules.steps):
            self._to(replace(state, stage=state.stage + 1, reason=Message("promoted by a person")), action)
        elif action not in ACTIONS:
            raise UsageError("{action} is none of hold, promote, abort and resume.", action=action)
        elif stopped:
            raise UsageError(
                "The roll-out is stopped ({reason}), so {action} changes nothing. Begin again with resume.",
                reason=state.reason,
                action=action,
            )
        else:
            raise UsageError("The lighter model serves everybody already; there is no further step.")

    def report(self) -> dict[str, Any]:
        """Everything that `whet rollout status` tells, as plain values and messages."""
        judgement, seen, last = self.judge(), self.whole.errors.seen, self.whole.errors.open
        count, total = self.mean
        return {
            "status": self.state.status,
            "weight": self.weight,
            "stage": self.state.stage,
            "steps": list(self.rules.steps),
            "reason": self.state.reason,
            "since": self.state.since,
            "verdict": judgement.verdict,
            "because": judgement.reason,
            "step": {
                "seconds": round(self.clock() - self.step.began, 1),
                "requests": self.step.requests,
                "pairs": self.step.pairs,
                "questions": sum(one.count for one in self.step.tests.skills.found.values()),
            },
            "agreement": total / count if count else None,
            "pairs": count,
            "skills": self.whole.skills.told(),
            "requests": {
                "lighter": {"count": seen.lighter + last.lighter, "errors": seen.lighter_bad + last.lighter_bad},
                "original": {"count": seen.original + last.original, "errors": seen.original_bad + last.original_bad},
            },
        }

    # -- inside ------------------------------------------------------------------------------------------------------

    def _tests(self) -> Tests:
        return Tests.new(self.rules, self.skills)

    def _missing(self) -> list[Message]:
        rules, step = self.rules, self.step
        seconds = rules.hold - (self.clock() - step.began)
        requests = (rules.requests if self.state.stage else 0) - step.requests
        pairs = (rules.pairs if not self.state.stage else max(1, rules.pairs // 10)) - step.pairs
        missing = [Message("{seconds:.0f} s", seconds=seconds)] if seconds > 0 else []
        if requests > 0:
            missing.append(Message("{count} requests", count=requests))
        if pairs > 0:
            missing.append(Message("{count} comparisons", count=pairs))
        if (questions := self.step.tests.skills.missing(self.questions)) > 0:
            missing.append(Message("{count} questions", count=questions))
        return missing

    def _failing(self, names: Iterable[str] = PARTS) -> Message | None:
        if self.breaker.tripped:
            return FAILURES["faults"]
        if self.burn.burning:
            return FAILURES["latency"]
        error = self.rules.error
        found = self.whole.failing(level(error, 1), names)
        if found is None and self.step.start > 1:
            found = self.step.tests.failing(level(error, self.step.start), names)
        return found

    def _stop_if_failing(self, *names: str) -> None:
        """names: of the tests that have just heard something; all without any."""
        if self.state.status not in ("running", "held"):
            return
        if (reason := self._failing(names or PARTS)) is not None:
            self._to(replace(self.state, status="failed", reason=reason), "fail")

    def _to(self, state: State, event: str) -> None:
        """Store, then apply. A lower weight is applied even where it cannot be stored."""
        state = replace(state, since=self.wall())
        lower = state.weight(self.rules.steps) <= self.weight
        begins = state.stage != self.state.stage or self.state.status in ("failed", "aborted", "unknown")
        try:
            self.store.save(state, event)
            self.unsaved = ""
        except OSError:
            if not lower:
                raise
            self.unsaved = event  # `tick` tries again: after a restart it must not serve
        fresh = begins and state.stage == 0
        self.state = state
        if fresh:
            self._anew()
        elif begins:
            self.step = Step(self.clock(), self._tests(), start=self.step.start + 1)

    def _anew(self) -> None:
        """Forget all evidence: another roll-out begins."""
        self.whole = self._tests()
        self.step = Step(self.clock(), self._tests())
        self.proof = Below(self.rules.margin - self.rules.agreement, 0.0)
        self.mean = (0, 0.0)
        self.breaker, self.burn = Breaker(), Burn()


def place(salt: str, key: str) -> int:
    """Where a user stands among 10,000, the same at every weight."""
    digest = hashlib.blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 10_000


def _unreadable(why: str) -> Message:
    return Message(
        "the stored state cannot be read ({why}), so the original serves everybody until a person says resume", why=why
    )
