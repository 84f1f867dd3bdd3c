"""Worked answers: steps lost behind kept answers, and answers that do not follow their steps, are caught.

The models are solvers of sums that are known to do what they are called, behind the interface of an engine."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest

import taught
from whet.errors import UsageError
from whet.events import ignore
from whet.measure.aspects import Sides
from whet.measure.aspects.thinking import THINKING
from whet.measure.worked import (
    Written,
    corrupted,
    first_difference,
    read_answer,
    read_worked,
    right_answer,
    right_steps,
)


def problems(count: int = 60) -> list[dict[str, Any]]:
    rng = random.Random(0)
    made = []
    for _ in range(count):
        numbers = [rng.randint(1, 40) for _ in range(4)]
        prompt = " + ".join(map(str, numbers)) + " = ?\n"
        made.append({"prompt": prompt, "steps": steps_of(numbers), "answer": str(sum(numbers))})
    return made


def steps_of(numbers: Sequence[int], total: int | None = None, done: int = 0) -> list[str]:
    total = numbers[0] if total is None else total
    told = []
    for number in numbers[done + 1 :]:
        told.append(f"{total} + {number} = {total + number}")
        total += number
    return told


class Solver:
    """Goes on from the last step that it reads. shuffled: tells its steps in another order. sure: knows the answer
    whatever the steps say. slips: share of the problems in which a step goes wrong."""

    name, dtype, folder, vocabulary, context = "solver", "text", "solver", 0x110000, None

    def __init__(self, shuffled: bool = False, sure: bool = False, slips: float = 0.0) -> None:
        self.shuffled, self.sure, self.slips = shuffled, sure, slips

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def continue_ids(self, prompts: Sequence[Sequence[int]], room: int, **_: Any) -> list[list[int]]:
        return [self.encode(self.answer(self.decode(prompt)))[:room] for prompt in prompts]

    def answer(self, prompt: str) -> str:
        question, *before = prompt.strip().split("\n")
        numbers = [int(number) for number in re.findall(r"\d+", question)]
        total = int(before[-1].split()[-1]) if before else numbers[0]
        steps = steps_of(numbers, total, len(before))
        answer = sum(numbers) if self.sure else total + sum(numbers[len(before) + 1 :])
        if self.shuffled:
            steps = steps[::-1]
        if random.Random(question).random() < self.slips and not before:
            steps, answer = [re.sub(r"\d+$", "0", step) for step in steps], answer if self.sure else 0
        return "\n".join([*steps, f"#### {answer}", "", "Next: 1 + 1 = 3"])


def measured(lighter: Solver) -> dict[str, Any]:
    sides: Any = Sides(Solver(), lighter, {})  # type: ignore[arg-type]
    told = THINKING.measure(taught.case(problems()), sides, ignore)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    return told


def test_the_same_solver_raises_no_alarm() -> None:
    told = measured(Solver())
    assert [read["value"] for read in told["readings"]] == [0, 0, 0, 0] and told["first_difference"] == {"none": 60}
    steps, follows = taught.read(told, "steps"), taught.read(told, "follows")
    assert steps["original"] == follows["original"] == 1 and -0.07 < steps["interval"][0] < 0


def test_right_answers_with_shuffled_steps_are_caught() -> None:
    told = measured(Solver(shuffled=True))
    assert taught.read(told, "answer")["value"] == 0
    assert taught.read(told, "steps")["interval"][1] < -0.05 and taught.read(told, "lucky")["interval"][0] > 0.1
    assert "right answer by wrong steps" in told["examples"][0]["about"] and told["first_difference"] == {"1": 60}


def test_an_answer_that_does_not_follow_its_steps_is_caught() -> None:
    told = measured(Solver(sure=True))
    assert taught.read(told, "steps")["value"] == taught.read(told, "answer")["value"] == 0
    assert taught.read(told, "follows")["lighter"] == 0 and taught.read(told, "follows")["interval"][1] < -0.8


def test_steps_and_answers_that_go_wrong_together_are_no_lucky_ones() -> None:
    told = measured(Solver(slips=0.4))
    assert taught.read(told, "answer")["interval"][1] < -0.1 and taught.read(told, "steps")["interval"][1] < -0.1
    assert taught.read(told, "lucky")["value"] == 0 and "its answer with them" in told["examples"][0]["about"]


def test_an_original_without_steps_is_not_judged_by_them() -> None:
    bad = [{**one, "steps": ["0", "0"]} for one in problems(12)]
    told = THINKING.measure(taught.case(bad), Sides(Solver(), Solver(), {}), ignore)  # type: ignore[arg-type]
    assert taught.read(told, "steps")["value"] is None and "none of the right steps" in told["notes"][0]


def test_both_forms_of_records_are_read(tmp_path: Any) -> None:
    path = tmp_path / "gsm8k.jsonl"
    answer = "He has 2*3=<<2*3=6>>6 eggs.\nSo 6-1=<<6-1=5>>5 are left.\n#### 5"
    path.write_text(json.dumps({"question": "How many?", "answer": answer}), encoding="utf-8")
    (one,) = read_worked(path)
    assert one.prompt == "How many?\n" and one.steps == ("He has 2*3=6 eggs.", "So 6-1=5 are left.")
    assert one.answer == "5" and right_answer(read_answer(one.text + "\n\nmore", one.mark), one)
    assert right_steps(Written(one.steps[1:], "5"), one) == 0.5
    other = Written(("He has 6.", "7 are left"), "7")
    assert first_difference(Written(one.steps, "5"), other) == 2 and first_difference(other, other) is None
    clean, wrong = corrupted(one, random.Random(0)) or ("", "")
    assert clean != wrong and clean.split("=")[0] == wrong.split("=")[0]
    assert read_answer("7\n8\n\nnoise", "####") == Written(("7",), "8")


def test_bad_worked_answers_are_refused() -> None:
    for bad, why in (
        ({"prompt": "p", "answer": "1"}, "list of steps"),
        ({"question": "q", "answer": "1"}, "lines before ####"),
        ({"prompt": "p", "question": "q", "answer": "1", "steps": ["1"]}, "either prompt or question"),
        ({"prompt": "p", "step": ["1"], "answer": "1"}, "Did you mean steps"),
    ):
        with pytest.raises(UsageError, match=why):
            THINKING.lacking(taught.case([bad]))
    assert "--worked" in str(THINKING.lacking(taught.case(None)))
