"""Questions of logic: three people in order, and syllogisms about three kinds that nobody knows."""

from __future__ import annotations

from random import Random

from whet.korean import josa
from whet.starter.splits import Question, split_of
from whet.starter.words import PEOPLE, plural

# more than, less than, most, least; Korean: more, less (predicates), most, least (attributive)
_RELATIONS = [
    ("taller", "shorter", "tallest", "shortest", "키가 더 크다", "키가 더 작다", "키가 가장 큰", "키가 가장 작은"),
    (
        "older",
        "younger",
        "oldest",
        "youngest",
        "나이가 더 많다",
        "나이가 더 적다",
        "나이가 가장 많은",
        "나이가 가장 적은",
    ),
    ("faster", "slower", "fastest", "slowest", "더 빠르다", "더 느리다", "가장 빠른", "가장 느린"),
    ("stronger", "weaker", "strongest", "weakest", "힘이 더 세다", "힘이 더 약하다", "힘이 가장 센", "힘이 가장 약한"),
]


def _claim(relation: tuple[str, ...], more: str, less: str, turned: bool, korean: bool) -> str:
    """That `more` is taller than `less`; `turned`: that `less` is shorter than `more`."""
    a, b = (less, more) if turned else (more, less)
    if korean:
        return f"{josa(PEOPLE[a][0], '은')} {PEOPLE[b][0]}보다 {relation[5 if turned else 4]}."
    return f"{a} is {relation[1 if turned else 0]} than {b}."


def logic_ordering(rng: Random, split: str, straight: bool = False, mixed: bool = False) -> Question:
    """Three people, two comparisons in any order, each saying who is more: who is first, last or in between?

    Training also has lessons: `mixed` says as often who is less, `straight` does so seldom and keeps the order. Which
    of the two is said against which of the two is asked is an exclusive or, which this model hardly learns.
    """
    while True:
        names = rng.sample(list(PEOPLE), 3)  # from most to least
        relation = rng.choice(_RELATIONS)
        key = relation[0] + " " + " ".join(sorted(names))
        if split_of(key) == split:
            break
    korean = rng.random() < 0.4
    turned = 0.15 if straight else 0.5 if mixed else -1.0
    claims = [_claim(relation, names[i], names[i + 1], rng.random() < turned, korean) for i in range(2)]
    if not straight:
        rng.shuffle(claims)
    asked = rng.randrange(3)
    if korean:
        middle, mark, answer = "가운데는 누구인가요?", "답", PEOPLE[names[asked]][0]
        question = [f"{relation[6]} 사람은 누구인가요?", middle, f"{relation[7]} 사람은 누구인가요?"][asked]
    else:
        mark, answer = "Answer", names[asked]
        question = [f"Who is the {relation[2]}?", "Who is in the middle?", f"Who is the {relation[3]}?"][asked]
    return f"{' '.join(claims)} {question}\n{mark}:", answer, key


def logic_comparison(rng: Random, straight: bool = False, mixed: bool = False) -> Question:
    """The single step of an ordering, for training only: two people, one comparison, who is first or last?"""
    names, relation = rng.sample(list(PEOPLE), 2), rng.choice(_RELATIONS)
    korean, last = rng.random() < 0.4, rng.randrange(2)
    turned = 0.15 if straight else 0.5 if mixed else -1.0
    claim = _claim(relation, names[0], names[1], rng.random() < turned, korean)
    key = f"{relation[0]} {' '.join(sorted(names))}"
    if korean:
        return f"{claim} {relation[6 + last]} 사람은 누구인가요?\n답:", PEOPLE[names[last]][0], key
    return f"{claim} Who is the {relation[2 + last]}?\nAnswer:", names[last], key


KINDS = ["wug", "blicket", "dax", "toma", "fep", "zorp", "glim", "nall", "pilk", "rovo", "snerf", "tulp", "vask", "yim",
         "brone", "crell", "drint", "hoop", "jask", "kiff", "lorn", "marn", "plov", "quib"]  # fmt: skip


def logic_syllogism(
    rng: Random, split: str, converse: bool = False, chained: bool = False, lookup: bool = False
) -> Question:
    """Two premises about three kinds nobody knows, in either order: yes, no or unknown.

    Three lessons lead there. `lookup` asks which kind a premise says all of a kind are (unknown, if none does): a word
    to copy teaches to find a kind in a premise, which yes or no alone did not in 4,000 steps. `converse` is one
    premise, asked as it says or the other way round. `chained` has the two cases that differ only in where the second
    `All` points.

    Training also has the single step (a person is one kind, of which something holds); evaluation does not, because the
    three kinds are the key and a single step shows only two of them.
    """
    while True:
        a, b, c = rng.sample(KINDS, 3)
        key = "kinds " + " ".join(sorted((a, b, c)))
        if split_of(key) == split:
            break
    pa, pb, pc = plural(a), plural(b), plural(c)
    if lookup:
        premises = [f"All {pa} are {pb}.", rng.choice([f"All {pb} are {pc}.", f"All {pc} are {pb}."])]
        said = {premise.split()[1]: premise.split()[3].rstrip(".") for premise in premises}
        rng.shuffle(premises)
        kind = rng.choice([pa, pb, pc])
        return f"{' '.join(premises)} What are all {kind}?\nAnswer:", said.get(kind, "unknown"), key
    if converse:
        question, answer = rng.choice(
            [
                (f"Are all {pa} {pb}?", "yes"),
                (f"Is every {a} a {b}?", "yes"),
                (f"Are all {pb} {pa}?", "unknown"),
                (f"Is every {b} a {a}?", "unknown"),
            ]
        )
        return f"All {pa} are {pb}. {question}\nAnswer:", answer, key
    who = rng.choice(list(PEOPLE))
    every = rng.choice([f"Are all {pa} {pc}?", f"Is every {a} a {c}?"])
    two_steps = [
        ([f"All {pa} are {pb}.", f"All {pb} are {pc}."], every, "yes"),
        ([f"All {pa} are {pb}.", f"No {pb} are {pc}."], every, "no"),
        ([f"All {pa} are {pb}.", f"All {pc} are {pb}."], every, "unknown"),
        ([f"All {pa} are {pb}.", f"Some {pb} are {pc}."], every, "unknown"),
    ]
    one_step = [
        ([f"All {pa} are {pb}.", f"{who} is a {a}."], f"Is {who} a {b}?", "yes"),
        ([f"No {pa} are {pb}.", f"{who} is a {a}."], f"Is {who} a {b}?", "no"),
        ([f"All {pa} are {pb}.", f"{who} is a {b}."], f"Is {who} a {a}?", "unknown"),
        ([f"All {pa} are {pb}.", f"{who} is not a {b}."], f"Is {who} a {a}?", "no"),
    ]
    cases = [two_steps[0], two_steps[2]] if chained else two_steps + one_step if split == "train" else two_steps
    premises, question, answer = rng.choice(cases)
    rng.shuffle(premises)
    return f"{' '.join(premises)} {question}\nAnswer:", answer, key
