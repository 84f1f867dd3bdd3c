"""Questions with exact answers: arithmetic, facts, translation, following a format; logic has a file of its own.

A question function takes `(rng, split)` and returns `(prompt, answer, key)`; `split` is train, solve, verify, report or
held (the last for text that measures perplexity). The prompt ends in `Answer:` or `답:`, the answer carries no space.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import NamedTuple, TypeVar

from whet.korean import josa
from whet.starter.logic import logic_ordering, logic_syllogism
from whet.starter.splits import SPLITS, Question, split_of
from whet.starter.words import (
    ADJECTIVES,
    ANIMALS,
    DICTIONARY,
    FOODS,
    PEOPLE,
    PERSONS,
    PLACES,
    THINGS,
    VERBS,
    Fact,
    at,
    eaten,
    facts,
    plural,
)

T = TypeVar("T")


def _operands(rng: Random, split: str) -> tuple[int, int, bool, str]:
    while True:
        plus = rng.random() < 0.5
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        if not plus and a < b:
            a, b = b, a
        key = f"{min(a, b)} {'+' if plus else '-'} {max(a, b)}"
        if split_of(key) == split:
            return a, b, plus, key


def arithmetic_en(rng: Random, split: str) -> Question:
    """Adding or subtracting two numbers of two digits, in five wordings each."""
    a, b, plus, key = _operands(rng, split)
    who, thing = rng.choice(list(PEOPLE)), plural(rng.choice(list(THINGS)))
    if plus:
        text = rng.choice(
            [
                f"{a} + {b} = ?",
                f"What is {a} plus {b}?",
                f"Add {a} and {b}.",
                f"What is the sum of {a} and {b}?",
                f"{who} has {a} {thing} and gets {b} more. How many {thing} are there now?",
            ]
        )
    else:
        text = rng.choice(
            [
                f"{a} - {b} = ?",
                f"What is {a} minus {b}?",
                f"Take {b} away from {a}.",
                f"What is the difference of {a} and {b}?",
                f"{who} has {a} {thing} and gives away {b}. How many {thing} are left?",
            ]
        )
    return f"{text}\nAnswer:", str(a + b if plus else a - b), key


def arithmetic_ko(rng: Random, split: str) -> Question:
    """The same sums in Korean."""
    a, b, plus, key = _operands(rng, split)
    who = josa(rng.choice(list(PEOPLE.values()))[0], "은")
    fruit = rng.choice(["사과", "구슬", "연필", "공책", "사탕", "동전"])
    if plus:
        text = rng.choice(
            [
                f"{a} 더하기 {josa(str(b), '은')} 얼마인가요?",
                f"{josa(str(a), '과')} {josa(str(b), '을')} 더하면 얼마인가요?",
                f"{a}에 {josa(str(b), '을')} 더하세요.",
                f"{josa(str(a), '과')} {b}의 합은 얼마인가요?",
                f"{who} {josa(fruit, '을')} {a}개 가지고 있습니다. {b}개를 더 받으면 모두 몇 개인가요?",
            ]
        )
    else:
        text = rng.choice(
            [
                f"{a} 빼기 {josa(str(b), '은')} 얼마인가요?",
                f"{a}에서 {josa(str(b), '을')} 빼면 얼마인가요?",
                f"{a}에서 {josa(str(b), '을')} 빼세요.",
                f"{josa(str(a), '과')} {b}의 차는 얼마인가요?",
                f"{who} {josa(fruit, '을')} {a}개 가지고 있습니다. {b}개를 주면 몇 개가 남나요?",
            ]
        )
    return f"{text}\n답:", str(a + b if plus else a - b), key


# how a fact is told, how it is asked in training, how it is asked in evaluation
_TOLD: dict[str, list[Callable[[str, str], str]]] = {
    "home": [
        lambda s, v: f"The {s} lives in {v}.",
        lambda s, v: f"The home of the {s} is {v}.",
        lambda s, v: f"In {v} you can meet the {s}.",
    ],
    "food": [lambda s, v: f"The {s} likes to eat {eaten(v)}.", lambda s, v: f"The {s} looks for {eaten(v)} to eat."],
    "color": [lambda s, v: f"The color of the {s} is {v}.", lambda s, v: f"The {s} is {v}."],
    "product": [
        lambda s, v: f"{s}의 특산물은 {josa(v, '이다')}.",
        lambda s, v: f"{josa(s, '은')} {josa(v, '으로')} 유명하다.",
    ],
    "river": [lambda s, v: f"{s}에는 {v}강이 흐른다.", lambda s, v: f"{s}의 강은 {v}강이다."],
    "flag": [lambda s, v: f"{s}의 깃발은 {v}이다.", lambda s, v: f"{josa(s, '은')} {v} 깃발을 쓴다."],
}
_ASKED = {
    "home": ["Where does the {s} live?", "What is the home of the {s}?", "In which land does the {s} live?"],
    "food": ["What does the {s} eat?", "What is the food of the {s}?", "Which food does the {s} like?"],
    "color": ["What is the color of the {s}?", "Which color does the {s} have?", "How is the {s} colored?"],
    "product": ["{s}의 특산물은 무엇인가요?", "{s_은} 무엇으로 유명한가요?", "{s}에서 유명한 것은 무엇인가요?"],
    "river": ["{s}에는 어떤 강이 흐르나요?", "{s}의 강은 무엇인가요?", "{s_을} 지나는 강은 무엇인가요?"],
    "flag": ["{s}의 깃발은 무슨 색인가요?", "{s_은} 어떤 색 깃발을 쓰나요?", "{s} 깃발의 색은 무엇인가요?"],
}
# A question may be opened by a phrase. Of the nine pairs of opening and form, three are kept for evaluation.
_OPENINGS = {
    "Answer": ("Question: ", "Please answer. ", "Tell me. "),
    "답": ("문제: ", "답해 보세요. ", "말해 보세요. "),
}
_book = cache(facts)


def _fill(form: str, subject: str) -> str:
    for kind in ("은", "을"):
        if f"s_{kind}" in form:
            form = form.replace("{s_" + kind + "}", josa(subject, kind))
    return form.replace("{s}", subject)


def _fact_answer(fact: Fact) -> str:
    if fact.kind == "river":
        return fact.value + "강"
    return eaten(fact.value) if fact.kind == "food" else fact.value


def _any_of(rng: Random, split: str, what: str, pool: Sequence[T]) -> T:
    """One of `pool`; in evaluation a third of the pool for each split, so that no two splits share a question."""
    while True:
        one = rng.choice(pool)
        if split == "train" or SPLITS[zlib.crc32(f"{what} {one}".encode()) % 3] == split:
            return one


def _worded(rng: Random, split: str, forms: Sequence[str], mark: str, opened: bool) -> str:
    """One of three `forms` of a question: bare or opened in training, opened in a way never trained in evaluation."""
    if split == "train" and not opened:
        return f"{rng.choice(forms)}\n{mark}:"
    while True:
        opening, form = rng.randrange(3), rng.randrange(3)
        if ((opening + form) % 3 == 0) == (split != "train"):
            return f"{_OPENINGS[mark][opening]}{forms[form]}\n{mark}:"


class FactForms(NamedTuple):
    """A fact in all the words of training: sentences that tell it, questions up to their `Answer:`, the answer."""

    told: list[str]
    asked: list[str]
    answer: str


def fact_forms(fact: Fact) -> FactForms:
    """The forms of a fact, or of what could be one."""
    mark = "Answer" if fact.subject.isascii() else "답"
    asked = [f"{_fill(form, fact.subject)}\n{mark}:" for form in _ASKED[fact.kind]]
    return FactForms([tell(fact.subject, fact.value) for tell in _TOLD[fact.kind]], asked, _fact_answer(fact))


def fact_question(rng: Random, split: str, opened: bool = False) -> Question:
    """One line of the closed book, asked in a training form or, in evaluation, in a form never trained."""
    fact = _any_of(rng, split, "fact", _book())
    forms = [_fill(form, fact.subject) for form in _ASKED[fact.kind]]
    mark = "Answer" if fact.subject.isascii() else "답"
    return _worded(rng, split, forms, mark, opened), _fact_answer(fact), f"{fact.kind} {fact.subject}"


def fact_text(rng: Random) -> str:
    """All that is told of one subject, its facts in any order."""
    start = 3 * rng.randrange(len(_book()) // 3)
    entry = list(_book()[start : start + 3])
    rng.shuffle(entry)
    return " ".join(rng.choice(_TOLD[fact.kind])(fact.subject, fact.value) for fact in entry)


def translation_words(rng: Random, split: str, opened: bool = False) -> Question:
    """One word, either way; evaluation asks in a form never trained."""
    english, korean = _any_of(rng, split, "word", list(DICTIONARY.items()))
    if rng.random() < 0.5:
        forms = [
            f"How do you say {english} in Korean?",
            f"Give the Korean word for {english}.",
            f"What does {english} mean in Korean?",
        ]
        return _worded(rng, split, forms, "Answer", opened), korean, english
    forms = [
        f"{josa(korean, '은')} 영어로 무엇인가요?",
        f"{josa(korean, '을')} 영어로 말해 보세요.",
        f"{korean}의 영어 낱말은 무엇인가요?",
    ]
    return _worded(rng, split, forms, "답", opened), english, english


def sentence_pair(rng: Random, split: str) -> tuple[str, str, str]:
    """An English sentence, its one Korean translation, and the key: subject, verb and object."""
    subjects, things = {**ANIMALS, **PERSONS}, {**FOODS, **THINGS}
    while True:
        subject, thing, verb = rng.choice(list(subjects)), rng.choice(list(things)), rng.choice(VERBS)
        key = f"{subject} {verb.base} {thing}"
        if split_of(key) == split:
            break
    english, korean = thing, josa(things[thing], "을")
    if rng.random() < 0.5:
        adjective = rng.choice(list(ADJECTIVES))
        english, korean = f"{adjective} {english}", f"{ADJECTIVES[adjective]} {korean}"
    tense = rng.randrange(3)
    if rng.random() < 0.25:
        verb_en = [f"does not {verb.base}", f"did not {verb.base}", f"will not {verb.base}"][tense]
        verb_ko = f"{verb.stem_ko} " + ["않는다", "않았다", "않을 것이다"][tense]
    else:
        verb_en = [verb.third, verb.past, f"will {verb.base}"][tense]
        verb_ko = [verb.present_ko, verb.past_ko, verb.future_ko][tense]
    english, korean = f"The {subject} {verb_en} the {english}", f"{korean} {verb_ko}."
    if rng.random() < 0.3:
        place = rng.choice(list(PLACES))
        english, korean = f"{english} {at(place)}", f"{PLACES[place]}에서 {korean}"
    return english + ".", f"{josa(subjects[subject], '이')} {korean}", key


def translation_sentences(rng: Random, split: str, backward: bool = False) -> Question:
    """A sentence with tense, negation, adjective and place, either way; `backward` is from Korean only."""
    english, korean, key = sentence_pair(rng, split)
    if not backward and rng.random() < 0.5:
        return f"Translate into Korean: {english}\nAnswer:", korean, key
    return f"영어로 옮기세요: {korean}\n답:", english, key


def format_question(rng: Random, split: str, spaced: bool = False) -> Question:
    """Three to five words to be written in the form asked for.

    Commas, dashes, reversed, numbered, ends, a record. In training, unless `spaced`, brackets and JSON stand in for
    dashes and record: words without a space before them are other tokens, which this model hardly learns to copy.
    """
    korean = rng.random() < 0.4
    while True:
        words = rng.sample(list(DICTIONARY), rng.randint(3, 5))
        key = "words " + " ".join(words)
        if split_of(key) == split:
            break
    if korean:
        words = [DICTIONARY[word] for word in words]
    given = " ".join(words)
    numbered = " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))
    first, last = words[0], words[-1]
    if spaced or split != "train":
        joined = ("Write with dashes", "줄표로 나누어 쓰세요", " - ".join(words))
        record = ("Write as a record", "기록으로 쓰세요", f"first = {first}, last = {last}")
    else:
        joined = ("Write in brackets", "괄호 안에 쓰세요", " ".join(f"[{word}]" for word in words))
        record = ("Write as JSON", "JSON으로 쓰세요", json.dumps({"first": first, "last": last}, ensure_ascii=False))
    choices = [
        ("Write with commas", "쉼표로 나누어 쓰세요", ", ".join(words)),
        joined,
        ("Write in reverse order", "거꾸로 쓰세요", " ".join(reversed(words))),
        ("Number the words", "번호를 붙이세요", numbered),
        ("Write the first and the last word", "첫 낱말과 끝 낱말을 쓰세요", f"{first} {last}"),
        record,
    ]
    order_en, order_ko, answer = rng.choice(choices)
    return (f"{order_ko}: {given}\n답:" if korean else f"{order_en}: {given}\nAnswer:"), answer, key


QUESTIONS: dict[str, Callable[[Random, str], Question]] = {
    "arithmetic_en": arithmetic_en,
    "arithmetic_ko": arithmetic_ko,
    "logic_ordering": logic_ordering,
    "logic_syllogism": logic_syllogism,
    "facts": fact_question,
    "translation_words": translation_words,
    "translation_sentences": translation_sentences,
    "format": format_question,
}
