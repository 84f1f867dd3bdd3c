"""Worked answers: problems with the steps that lead to the answer, and what a model's own steps are worth.

Two forms of record: `{"prompt", "steps": [...], "answer"}`, and that of GSM8K, `{"question", "answer"}` with the steps
as lines of the answer and the result behind `####`; its calculator annotations `<<2+3=5>>` are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from pydantic import Field, model_validator

from whet.measure.items import NUMBER, last_number
from whet.measure.records import Material, read_records
from whet.messages import Message
from whet.strict import Strict

EXAMPLE = '{"prompt": "3 bags of 4 apples and 5 more?\\n", "steps": ["3 * 4 = 12", "12 + 5 = 17"], "answer": "17"}'
MARK = "####"
_ANNOTATION = re.compile(r"<<[^<>]*>>")


class Record(Strict):
    """mark: what stands before the answer, on a line of its own. group: what it is about; error bars count groups."""

    prompt: str | None = None
    question: str | None = None
    steps: list[str] = Field(default_factory=list)
    answer: str = Field(min_length=1)
    mark: str = Field(default=MARK, min_length=1)
    group: str | None = None

    @model_validator(mode="after")
    def _has_steps(self) -> Record:
        if (self.prompt is None) == (self.question is None):
            raise ValueError(Message("a worked answer has either prompt or question"))
        lines = _parted(self.answer)[0] if self.question is not None else self.steps
        if not lines or (self.question is not None and self.steps):
            raise ValueError(
                Message("a prompt goes with a list of steps, a question with an answer that has lines before ####")
            )
        return self


@dataclass(frozen=True)
class Worked:
    """One problem: what the model reads, the steps and the answer that are right."""

    prompt: str
    steps: tuple[str, ...]
    answer: str
    mark: str
    group: str

    @property
    def text(self) -> str:
        """The whole worked answer."""
        return "\n".join([*self.steps, f"{self.mark} {self.answer}"])


def read_worked(source: Material) -> list[Worked]:
    """Worked answers of a file or a list. Raises as `read_records`."""
    found = []
    for number, one in enumerate(read_records(Record, source, EXAMPLE)):
        steps, answer = one.steps, one.answer
        if one.question is not None:
            steps, answer = _parted(one.answer)
        prompt = f"{one.question}\n" if one.prompt is None else one.prompt
        group = f"#{number}" if one.group is None else one.group
        found.append(Worked(prompt, tuple(steps), answer.strip(), one.mark, group))
    return found


def _parted(text: str) -> tuple[list[str], str]:
    """Steps and answer of a text of GSM8K; no steps where it has no mark."""
    before, mark, answer = _ANNOTATION.sub("", text).rpartition(MARK)
    return ([line.strip() for line in before.split("\n") if line.strip()] if mark else []), answer


@dataclass(frozen=True)
class Written:
    """What a model wrote: the steps, and the answer ('' where it came to none)."""

    steps: tuple[str, ...]
    answer: str


def read_answer(text: str, mark: str) -> Written:
    """Steps and answer of a text: lines up to the one with `mark`; without it up to an empty line, the last being the
    answer."""
    lines: list[str] = []
    for line in _ANNOTATION.sub("", text).strip().split("\n"):
        before, found, after = line.partition(mark)
        if found:
            return Written(tuple([*lines, *([before.strip()] if before.strip() else [])]), after.strip())
        if not line.strip():
            break
        lines.append(line.strip())
    return Written(tuple(lines[:-1]), lines[-1] if lines else "")


def result_of(step: str) -> float | str:
    """What a step comes to: its last number, or where it has none its words."""
    number = last_number(step)
    return " ".join(step.split()).casefold() if number is None else number


def right_answer(written: Written, worked: Worked) -> bool:
    """Whether the answers come to the same."""
    return bool(written.answer) and result_of(written.answer) == result_of(worked.answer)


def right_steps(written: Written, worked: Worked) -> float:
    """The share of the right results that the steps come to, in the right order (longest common subsequence)."""
    mine, right = [result_of(step) for step in written.steps], [result_of(step) for step in worked.steps]
    longest = [0] * (len(right) + 1)
    for one in mine:
        before = longest[:]
        for place, other in enumerate(right, 1):
            longest[place] = before[place - 1] + 1 if one == other else max(longest[place - 1], before[place])
    return longest[-1] / len(right)


def first_difference(first: Written, second: Written) -> int | None:
    """The number of the first step, from 1, that comes to something else (the answer counts as the last); None where
    all come to the same."""
    rows = [[*map(result_of, (*one.steps, one.answer))] for one in (first, second)]
    for place, (one, other) in enumerate(zip(*rows, strict=False), 1):
        if one != other:
            return place
    return None if len(rows[0]) == len(rows[1]) else min(map(len, rows)) + 1


def corrupted(worked: Worked, rng: Random) -> tuple[str, str] | None:
    """The beginning of the worked answer up to a step that has a number, as it is and with another result near it; None
    where no step has one."""
    places = [place for place, step in enumerate(worked.steps) if NUMBER.search(step)]
    if not places:
        return None
    place = rng.choice(places)
    step = worked.steps[place]
    *_, last = NUMBER.finditer(step)
    value = last_number(last.group())
    assert value is not None
    wrong = f"{value + rng.choice((1, 2, 3)):g}"
    before = list(worked.steps[:place])
    changed = step[: last.start()] + wrong + step[last.end() :]
    return tuple("\n".join([*before, end]) + "\n" for end in (step, changed))  # type: ignore[return-value]
