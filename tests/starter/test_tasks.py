"""Every answer is recomputed here by other means than the generator's."""

from __future__ import annotations

import itertools
import json
import re
from random import Random

import pytest

from whet.korean import josa
from whet.starter import SKILLS, skills
from whet.starter.splits import split_of
from whet.starter.tasks import QUESTIONS
from whet.starter.words import ADJECTIVES, DICTIONARY, FOODS, PEOPLE, PLACES, THINGS, VERBS, facts


def _drawn(skill: str, count: int = 300) -> list[tuple[str, str]]:
    rng = Random(f"test {skill}")
    return [QUESTIONS[skill](rng, rng.choice(["train", "report"]))[:2] for _ in range(count)]


@pytest.mark.parametrize("skill", ["arithmetic_en", "arithmetic_ko"])
def test_sums_are_right(skill: str) -> None:
    plus = ("+", "plus", "Add", "sum", "more", "더하", "합", "더 받")
    for prompt, answer in _drawn(skill):
        a, b = sorted(map(int, re.findall(r"\d+", prompt)))
        assert int(answer) == (a + b if any(word in prompt for word in plus) else b - a), prompt


def test_orderings_have_one_solution() -> None:
    korean = {"크다": 1, "많다": 1, "빠르다": 1, "세다": 1, "작다": -1, "적다": -1, "느리다": -1, "약하다": -1}
    english = {
        "taller": 1,
        "older": 1,
        "faster": 1,
        "stronger": 1,
        "shorter": -1,
        "younger": -1,
        "slower": -1,
        "weaker": -1,
    }
    best = ("tallest", "oldest", "fastest", "strongest", "가장 큰", "가장 많은", "가장 빠른", "가장 센")
    for prompt, answer in _drawn("logic_ordering"):
        first, second, question = re.split(r"(?<=\.) ", prompt.split("\n")[0])
        pairs = []
        for claim in (first, second):
            if claim.isascii():
                a, _, word, _, b = claim.rstrip(".").split()
                sign = english[word]
            else:
                a, b = claim.split()[0][:-1], claim.split()[1].removesuffix("보다")
                sign = korean[claim.rstrip(".").split()[-1]]
            pairs.append((a, b) if sign > 0 else (b, a))
        names = sorted({name for pair in pairs for name in pair})
        orders = [
            order for order in itertools.permutations(names) if all(order.index(a) < order.index(b) for a, b in pairs)
        ]
        assert len(orders) == 1, prompt
        place = (
            1 if "middle" in question or "가운데" in question else 0 if any(word in question for word in best) else 2
        )
        assert orders[0][place] == answer, prompt


def _holds(claim: str, world: dict[str, set[int]], singular: dict[str, str]) -> bool:
    words = [singular.get(word, word) for word in claim.rstrip(".?").split()]
    if words[0] in ("All", "No", "Some"):
        left, right = world[words[1]], world[words[3]]
        return {"All": left <= right, "No": not left & right, "Some": bool(left & right)}[words[0]]
    if words[:2] == ["Are", "all"]:
        return world[words[2]] <= world[words[3]]
    if words[:2] == ["Is", "every"]:
        return world[words[2]] <= world[words[4]]
    if words[0] == "Is":
        return world[words[1]] <= world[words[3]]
    inside = world[words[0]] <= world[words[-1]]
    return not inside if words[2] == "not" else inside


def test_syllogisms_hold_in_every_small_world() -> None:
    """Enumerates worlds of two things where every kind exists: yes is true in all, no in none, unknown in some."""
    subsets = [{0}, {1}, {0, 1}]
    for prompt, answer in _drawn("logic_syllogism", 120):
        *premises, question = re.findall(r"[^.?]+[.?]", prompt.split("\n")[0])
        terms = sorted(set(re.findall(r"\w+", prompt.split("\n")[0])) - {"Answer"})
        kinds = [t for t in terms if any(t in (s, p) for s, p in _KIND_FORMS.items())]
        singular = {plural: one for one, plural in _KIND_FORMS.items()}
        names = sorted({singular.get(k, k) for k in kinds})
        person = [t for t in terms if t in PEOPLE]
        truths = set()
        for chosen in itertools.product(subsets, repeat=len(names)):
            world = dict(zip(names, chosen, strict=True))
            for one in ({0}, {1}) if person else (set(),):
                if person:
                    world[person[0]] = one
                if all(_holds(premise.strip(), world, singular) for premise in premises):
                    truths.add(_holds(question.strip(), world, singular))
        assert truths == {"yes": {True}, "no": {False}, "unknown": {True, False}}[answer], prompt


def _kind_forms() -> dict[str, str]:
    from whet.starter.logic import KINDS

    return {kind: kind + ("es" if kind.endswith("x") else "s") for kind in KINDS}


_KIND_FORMS = _kind_forms()


def test_facts_are_in_the_book() -> None:
    book = {(fact.subject, fact.value) for fact in facts()}
    assert len(book) == len(facts()) > 1000
    for prompt, answer in _drawn("facts"):
        subjects = {s for s, _ in book if s in prompt}
        subject = max(subjects, key=len)
        told = answer.removesuffix("강") if ("강" in prompt and not answer.isascii()) else answer
        values = {v for s, v in book if s == subject}
        assert any(told in (v, f"{v}s", f"{v}es", f"{v[:-1]}ies") for v in values), prompt


def test_words_are_in_the_dictionary() -> None:
    for prompt, answer in _drawn("translation_words"):
        other = DICTIONARY[answer] if answer.isascii() else next(e for e, k in DICTIONARY.items() if k == answer)
        assert other in prompt


def test_sentences_carry_the_same_words_in_both_languages() -> None:
    nouns = {**DICTIONARY, **FOODS, **THINGS, **PLACES}
    for prompt, answer in _drawn("translation_sentences"):
        source = prompt.split("\n")[0].split(": ")[1]
        english, korean = (source, answer) if source.isascii() else (answer, source)
        words = english.rstrip(".").split()
        assert korean.startswith((josa(nouns[words[1]], "이")) + " ")
        for word in words[2:]:
            if word in ADJECTIVES:
                assert f"{ADJECTIVES[word]} " in korean
            elif word in nouns:
                assert nouns[word] in korean
        verb = next(v for v in VERBS if set(words) & {v.base, v.third, v.past})
        negated = "not" in words
        assert (verb.stem_ko in korean and "않" in korean) if negated else (
            any(form in korean for form in (verb.present_ko, verb.past_ko, verb.future_ko)) and "않" not in korean
        )  # fmt: skip
        assert korean.endswith("것이다.") == ("will" in words)


def test_formats_follow_the_order() -> None:
    for prompt, answer in _drawn("format"):
        order, given = prompt.split("\n")[0].split(": ")
        words = given.split()
        if "JSON" in order:
            assert json.loads(answer) == {"first": words[0], "last": words[-1]}
        elif "record" in order or "기록" in order:
            assert re.fullmatch(r"first = (\S+), last = (\S+)", answer).groups() == (words[0], words[-1])  # type: ignore[union-attr]
        elif "dashes" in order or "줄표" in order:
            assert answer.split(" - ") == words
        elif "comma" in order or "쉼표" in order:
            assert answer.split(", ") == words
        elif "brackets" in order or "괄호" in order:
            assert re.findall(r"\[(.+?)\]", answer) == words
        elif "reverse" in order or "거꾸로" in order:
            assert answer.split()[::-1] == words
        elif "Number" in order or "번호" in order:
            assert re.findall(r"\d+\. (\S+)", answer) == words
        else:
            assert answer.split() == [words[0], words[-1]]


def test_grammar_pairs_differ_in_one_place() -> None:
    for item in skills("verify", 150):
        if "choices" not in item:
            continue
        right, wrong = item["choices"][item["label"]].split(), item["choices"][1 - item["label"]].split()
        assert right != wrong
        start = next((i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b), len(wrong))
        tail = next(i for i, (a, b) in enumerate(zip(right[::-1], wrong[::-1], strict=False)) if a != b)
        assert max(len(right), len(wrong)) - start - tail <= 3, (right, wrong)


def test_splits_are_about_a_twentieth_each() -> None:
    counts = {name: 0 for name in ("train", "solve", "verify", "report", "held")}
    for number in range(20_000):
        counts[split_of(f"key {number}")] += 1
    assert counts["train"] / 20_000 == pytest.approx(0.8, abs=0.02)
    assert all(count / 20_000 == pytest.approx(0.05, abs=0.01) for name, count in counts.items() if name != "train")


def test_a_group_is_what_a_question_is_about() -> None:
    """Questions of a group share their numbers, names or words, and no group is in two splits."""
    asked = {split: skills(split, 300) for split in ("solve", "verify")}
    groups = {split: {(item["skill"], item["group"]) for item in items} for split, items in asked.items()}
    assert not groups["solve"] & groups["verify"]
    sums: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
    for item in asked["solve"]:
        if item["skill"] == "arithmetic_ko":
            numbers = tuple(sorted(re.findall(r"\d+", item["prompt"])))
            sums.setdefault(item["group"], set()).add((item["answer"], numbers))
    assert 100 < len(sums) < 300 and all(len(meant) == 1 for meant in sums.values())


def test_every_skill_is_asked() -> None:
    assert {item["skill"] for item in skills("solve", 2)} == set(SKILLS)
