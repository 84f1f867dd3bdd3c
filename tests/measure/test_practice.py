"""Problems that the original solves, variants with other numbers, and what it takes for a skill to have fallen."""

from __future__ import annotations

import re

import pytest
import torch

from whet.measure.healed import healed_skills, hurt_skills, verdict
from whet.measure.items import Item
from whet.measure.practice import Problem, in_halves, least_chances, solved, variants, with_failures
from whet.measure.skills import Outcome

SUMS = [Item("sums", f"{a} and {b}?", answer=str(a + b), check="number", group=f"{a} {b}") for a in range(10, 20)
        for b in range(30, 34)]  # fmt: skip


def test_no_group_is_on_both_sides_and_every_question_is_on_one():
    twice = [*SUMS, *(Item("sums", f"Add {item.prompt}", answer="1", group=item.group) for item in SUMS)]
    learnt, gate = in_halves(twice, 0)
    assert len(learnt) == len(gate) == len(SUMS) and sorted(map(id, (*learnt, *gate))) == sorted(map(id, twice))
    assert not {item.group for item in learnt} & {item.group for item in gate}
    assert in_halves(SUMS[:1], 0) == ([], SUMS[:1])
    assert in_halves(twice, 0) == (learnt, gate) != in_halves(twice, 1)


def test_variants_have_other_numbers_and_none_of_those_that_gate():
    gate = [
        Item("sums", f"{b} plus {a}, please.", answer="0", check="number") for a in range(10, 60) for b in range(50)
    ]
    found = variants(SUMS, 200, 0, gate)
    prompts = [item.prompt for item in found]
    assert len(found) == 200 == len(set(prompts)) and not set(prompts) & {item.prompt for item in SUMS}
    taken = {tuple(sorted(re.findall(r"\d+", item.prompt))) for item in gate}
    for item in found:
        numbers = re.findall(r"\d+", item.prompt)
        assert item.answer is None and [len(one) for one in numbers] == [2, 2] and tuple(sorted(numbers)) not in taken
    # of what is not checked as a number, or has none, nothing is made up
    assert not variants(
        [Item("facts", "Who was 12?", answer="x"), Item("sums", "?", answer="1", check="number")], 5, 0, []
    )
    # where there are no more, there are fewer
    assert len(variants([Item("one", "7?", answer="7", check="number")], 50, 0, [])) == 8


class _Knows:
    """An engine of the characters 0 to 127 that goes on with a digit and a line end; `wrong` prompts otherwise."""

    context, ends, folder = 64, set[int](), "knows"

    def __init__(self, sure=0.99, wrong=()):
        self.sure, self.wrong = sure, set(wrong)

    def encode(self, text, chat=False):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode()

    def _next(self, row):
        text = self.decode(row)
        head, mark, said = text.rpartition("?")
        return ord("\n") if said else ord("9" if head + mark in self.wrong else str(len(head) % 9))

    def continue_ids(self, prompts, room, stop_at_newline=False):
        found = []
        for prompt in prompts:
            row = list(prompt)
            while len(row) - len(prompt) < room and (len(row) == len(prompt) or row[-1] != 10):
                row.append(self._next(row))
            found.append(row[len(prompt) :])
        return found

    def logit_chunks(self, batch, tokens):
        logits = torch.full((*batch.shape, 128), (1 - self.sure) / 127).log()
        for i, row in enumerate(batch.tolist()):
            for j in range(len(row)):
                logits[i, j, self._next(row[: j + 1])] = torch.tensor(self.sure).log()
        yield logits


def test_solved_is_what_is_right_or_sure():
    known = [Item("a", "12?", answer="2", check="number"), Item("a", "123?", answer="7", check="number")]
    unknown = Item("a", "1234?", check="number")
    found = solved(_Knows(), [*known, unknown])
    assert [one.item.prompt for one in found] == ["12?", "1234?"]
    assert bytes(found[1].tokens).decode() == "1234?4\n" and found[1].start == 5
    assert [one.item.prompt for one in solved(_Knows(sure=0.8), [*known, unknown])] == ["12?"]
    assert least_chances(_Knows(sure=0.8), [found[0].tokens], [3]) == [pytest.approx(0.8, rel=1e-3)]
    assert not solved(_Knows(), [Item("a", "1" * 70 + "?", answer="1")])  # longer than the context


def test_failures_are_where_the_lighter_model_goes_on_otherwise():
    problems = solved(_Knows(), [Item("a", f"{'1' * n}?", check="number") for n in range(1, 5)])
    found = with_failures(_Knows(wrong=["11?"]), problems)
    assert [one.failed for one in found] == [False, True, False, False]
    assert [Problem(one.item, one.tokens, one.start) for one in found] == problems


def _answers(*rights):
    return {
        name: [Outcome("", bool(right)) for right in some]
        for name, some in zip(("original", "before", "after"), rights, strict=True)
    }


def _table(before, after, count=200):
    """Two skills of as many questions, all right in the original; after and before: right of the first and second."""
    items = [Item(skill, f"{i}", answer="x") for skill in ("sums", "facts") for i in range(count)]
    rights = [[i < right for right in some for i in range(count)] for some in (before, after)]
    return healed_skills(items, _answers([1] * 2 * count, *rights), ["sums"])


def test_the_verdict_by_paired_intervals():
    assert verdict(_table((150, 200), (199, 200)), 0.98)[0] == "healed"
    assert verdict(_table((150, 200), (185, 200)), 0.98)[0] == "better"
    outcome, reason = verdict(_table((150, 200), (152, 200)), 0.98)
    assert outcome == "rolled back" and "sums gained no more than chance" in str(reason)
    outcome, reason = verdict(_table((150, 200), (199, 180)), 0.98)
    assert outcome == "rolled back" and str(reason).startswith("facts fell: facts by 10.0%")
    # a few answers that change are chance: they are within what the skill's own interval was before
    assert verdict(_table((150, 198), (199, 196)), 0.98)[0] == "healed"
    # the skill that is practised may fall too
    assert verdict(_table((150, 200), (100, 200)), 0.98)[0] == "rolled back"


def test_hurt_is_what_is_surely_below_the_original():
    def entry(skill, interval):
        return {"skill": skill, "retention": {"interval": interval}}

    assert hurt_skills([entry("a", [0.8, 0.95]), entry("b", [0.9, 1.01]), entry("c", None)]) == ["a"]
