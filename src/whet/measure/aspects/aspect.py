"""What a comparison measures besides divergence, skills, speed and memory: one aspect a file of this folder.

An aspect is a value of `Aspect`; `whet.measure.aspects.KNOWN` lists them, `compare(measure=…)` chooses among them. What
it found is plain JSON: `readings`, which the tables, the page, limits and gates read without knowing the aspect;
`examples` and `notes`, which are shown; and whatever else it likes to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whet.engines import Engine
from whet.events import OnEvent
from whet.measure.asked import Asked, Given
from whet.measure.changes import change_of_means
from whet.measure.divergence import Collect
from whet.measure.items import Item
from whet.measure.records import Material
from whet.measure.skills import Outcome
from whet.measure.statistics import Estimate
from whet.messages import Message


@dataclass(frozen=True)
class Case:
    """What is known before a model is opened.

    task: what both models answer, as `whet.anatomy` names it. file: the aspect's own material, where one was given: a
    path, or records.
    """

    asked: Asked
    given: Given
    items: Sequence[Item]
    task: str
    file: Material | None = None


class Sides(NamedTuple):
    """Both models, opened, and what comparing them on the text collected: by name an array with an entry for every
    predicted token, in the order of the windows and of the tokens in them: the fields of
    `whet.measure.divergence.TokenScores`, and what aspects collect. outcomes: of both, what they answered to the items;
    () where there were none."""

    original: Engine
    lighter: Engine
    collected: Mapping[str, NDArray[Any]]
    outcomes: Sequence[Sequence[Outcome]] = ()


@dataclass(frozen=True)
class Reading:
    """One figure of an aspect.

    figure: its name in `whet.measure.figures.ASPECTS`, without the aspect's. value: what is judged, in the figure's
    unit, with its 95 % interval; exact: it has no error. of: the part it is of (a language, a skill), '' for all.
    original, lighter: the same of either model alone, where the value is a difference or a ratio of the two.
    """

    figure: str
    value: float | None
    interval: Sequence[float] | None = None
    of: str = ""
    original: float | None = None
    lighter: float | None = None
    exact: bool = False

    @classmethod
    def estimated(cls, figure: str, estimate: Estimate, **more: Any) -> Reading:
        """A figure with the error bar of an estimate."""
        return cls(figure, estimate.value, estimate.interval, **more)

    @classmethod
    def changed(cls, figure: str, before: ArrayLike, after: ArrayLike, clusters: ArrayLike, **more: Any) -> Reading:
        """The change of a mean over the same items [n], each from 0 to 1, and the means of both (`change_of_means`)."""
        alone = {"original": float(np.asarray(before).mean()), "lighter": float(np.asarray(after).mean())}
        return cls.estimated(figure, change_of_means(before, after, clusters), **alone, **more)

    def record(self) -> dict[str, Any]:
        """As the result has it."""
        return {**asdict(self), "interval": None if self.interval is None else list(self.interval)}


@dataclass(frozen=True)
class Example:
    """What a reader is shown: a prompt and what both models said to it. about: what is to be seen, in words."""

    about: Message
    prompt: str
    original: str
    lighter: str


def found(
    readings: Sequence[Reading],
    examples: Sequence[Example] = (),
    notes: Sequence[Message] = (),
    **more: Any,
) -> dict[str, Any]:
    """What an aspect tells, as the result has it."""
    told = {"readings": [each.record() for each in readings], "examples": [asdict(each) for each in examples]}
    return {**told, "notes": list(notes), **more}


@dataclass(frozen=True)
class Aspect:
    """One thing that a comparison can measure.

    name: in the result, in `measure` and before the dot in limits and gates. standard: measured unless left out.
    title: as a heading. meaning: what it tells, as the end of "Measures …".
    lacking: why it cannot be measured in this case, None where it can; raises UsageError where the material that was
    given for it is bad. seconds: about how long it takes, where a token takes so many seconds through the original.
    measure: opens no model but its own subject, and moves nothing; its result is made by `found`.
    collect: what it wants of every predicted token: from the probabilities of both [b, n, V], float32, which others
    look at too, and the tokens that come int64 [b, n], by name values [b, n] on the CPU. Names start with the aspect's.
    answers: it looks at what was answered to the items, where there are any.
    """

    name: str
    standard: bool
    title: Message
    meaning: Message
    lacking: Callable[[Case], Message | None]
    seconds: Callable[[Case, float], float]
    measure: Callable[[Case, Sides, OnEvent], dict[str, Any]]
    collect: Collect | None = None
    answers: bool = False


WRITES_ONLY = Message("it is told of models that predict tokens, and these do not")


def predicts(case: Case) -> Message | None:
    """`lacking` of what needs models that predict the next token."""
    return None if case.task in ("causal", "seq2seq") else WRITES_ONLY
