"""Every error that whet raises on purpose has its Korean, and what it names survives."""

from __future__ import annotations

import ast
import re
import time

import pytest

from report.raised import ERRORS, HANGUL, NAMED, SOURCE, TREES, called, fields, numbered, reader, refusals
from whet.budget import read_plan
from whet.errors import UsageError
from whet.recipe.schema import recipe_arguments
from whet.report.refusals import REFUSALS
from whet.report.sentences import SENTENCES, in_korean

# Three English words in a row are a part that was not translated; `whet compress` and `lm-eval ls tasks` are not.
ENGLISH = re.compile(r"(?<![-\w])[a-z]{2,}(?: [a-z]{2,}){2}")
FOUND = sorted((where, said) for where, said in refusals() if not where.startswith("budget/strict.py"))
# Reasons: parameters (of the table of families, of YAML's own error), functions that return them beside other things,
# and which argument of what reads a .gguf is named in one.
REASONS = {"still", "packed", "why", "problem"}
RETURN = {"_group", "_after_norm", "_after_linear"}
READS = {"take": 1, "number": 1, "text": 0, "_decoded": 2}


def parts() -> set[tuple[str, str]]:
    """Where and what, of the parts of errors that are handed on as arguments."""
    found = set()
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            given: list[ast.AST] = []
            if isinstance(node, ast.Call):
                given = [word.value for word in node.keywords if word.arg in REASONS]
                if file.name == "gguf.py" and called(node) in READS:
                    given += node.args[READS[called(node)] :][:1]
            elif isinstance(node, ast.Return) and any(f.name in RETURN for f in reader(file).around(node)):
                given = [node.value] if isinstance(node.value, ast.JoinedStr) else []
            told = {text for value in given for text in reader(file).texts(value, {})} - {"", NAMED}
            found |= {(f"{file.relative_to(SOURCE)}:{node.lineno}", numbered(text)) for text in told}
    return found


def is_korean(said: str) -> bool:
    korean = in_korean(said)
    named = set(re.findall(r"X\d+", said))
    return bool(HANGUL.search(korean)) and not ENGLISH.search(korean) and named <= set(re.findall(r"X\d+", korean))


@pytest.mark.parametrize(("where", "said"), FOUND)
def test_every_error_has_korean(where, said):
    assert is_korean(said), f"{where}: no Korean for {said!r} in report/refusals, only {in_korean(said)!r}"


@pytest.mark.parametrize(("where", "said"), sorted(parts()))
def test_every_part_of_an_error_has_korean(where, said):
    assert is_korean(said), f"{where}: no Korean for {said!r} in report/refusals"


def test_no_error_is_overlooked():
    """Where an error is made, a message was found: but for what is in the user's language or put together below."""
    lines = {where for where, _ in refusals()}
    for file, tree in TREES.items():
        makers = {line for maker in reader(file).makers.values() for line in range(maker.lineno, maker.end_lineno + 1)}
        for node in ast.walk(tree):
            if called(node) in ERRORS and node.lineno not in makers and called(node.args[0]) != "say":
                assert f"{file.relative_to(SOURCE)}:{node.lineno}" in lines
        for name in reader(file).makers:
            assert any(called(node) == name for node in ast.walk(tree)), f"{file}: nothing raises what {name} makes"


def test_an_error_without_korean_is_found():
    """The test above tells one from the other."""
    assert not is_korean("X1 is not what it was. Make it anew.")
    assert not is_korean("X1 does not exist. Make it anew.")
    assert not is_korean("X1 is not a whole .gguf file: it is written in ink. Download or export it again.")


def test_korean_names_what_the_english_names():
    assert not REFUSALS.keys() & SENTENCES.keys()
    for english, korean in REFUSALS.items():
        assert fields(korean) == fields(english), english
        assert HANGUL.search(korean), english
        assert "}{" not in english, f"where does the first field of {english!r} end?"


@pytest.mark.parametrize("named", ["{}", "/models/my {}/x.json", "'{}'"])
def test_every_pattern_is_the_one_meant(named):
    """None is shadowed by another that fits the same words."""
    for english, korean in (SENTENCES | REFUSALS).items():
        values = {name: named.format(f"N{number}") for number, name in enumerate(sorted(fields(english) - {"near"}))}
        filled, expected = english.replace("{near}", ""), korean.replace("{near}", "")
        for name, value in values.items():
            filled, expected = filled.replace(f"{{{name}}}", value), expected.replace(f"{{{name}}}", value)
        assert in_korean(filled) == expected, english


def test_hints_may_be_missing():
    path = "/models/my model.v2"
    told = in_korean(f"{path} does not exist. Give a model folder, or a hub name such as organisation/model.")
    assert told == f"{path}이(가) 없습니다. 모델 폴더나 organisation/model 같은 허브 이름을 주십시오."
    told = in_korean(f"{path} does not exist. Did you mean models? Give a .gguf file or a model folder.")
    assert told == f"{path}이(가) 없습니다. 혹시 models입니까? .gguf 파일이나 모델 폴더를 주십시오."


def test_particles_fit_what_is_korean():
    told = in_korean("the plan: this model has no 가중치. Name linears as the model's own tensors do, without .weight.")
    assert told.startswith("계획: 이 모델에 가중치가 없습니다.")
    assert in_korean("the plan has version 2; this whet reads version 1. Update whet.").startswith("계획의 version은 2")
    assert in_korean("the plan is not a plan: a plan is a JSON object. Make one with whet plan.").startswith("계획은 ")
    assert in_korean("damping raised from 하나 to 둘") == "감쇠를 하나에서 둘로 올렸습니다"
    assert in_korean("damping raised from 하나 to 1") == "감쇠를 하나에서 1(으)로 올렸습니다"


def test_lists_are_told_item_by_item():
    told = in_korean(
        "out holds a stopped run that cannot go on: seed was 0 and is 1; its plan is another. Give what it began with, "
        "or start in a new folder."
    )
    assert "seed이(가) 0에서 1(으)로 바뀌었습니다; 계획이 다릅니다." in told
    assert in_korean("one; its plan is another") == "one; its plan is another"


RECIPES = [
    {},
    {"version": 2},
    {"version": 1},
    {"version": 1, "steps": []},
    {"version": 1, "steps": "w4"},
    {"version": 1, "steps": [{"quantise": {}}]},
    {"version": 1, "steps": [{"quantize": {"sheme": "W4A16", "fitt": "4MB"}}]},
    {"version": 1, "steps": [{"quantize": {"fit": [4]}}]},
    {"version": 1, "steps": [{"quantize": {"bits": "many"}}]},
    {"version": 1, "steps": [{"quantize": {"bits": float("nan")}}]},
    {"version": 1, "steps": [{"quantize": {"samples": 0, "window": 1}}]},
    {"version": 1, "steps": [{"quantize": {"samples": 1.5}}]},
    {"version": 1, "steps": [{"quantize": {"samples": "x"}}]},
    {"version": 1, "steps": [{"quantize": {"chat": "perhaps"}}]},
    {"version": 1, "steps": [{"quantize": {"chat": []}}]},
    {"version": 1, "steps": [{"quantize": {"text": 3}}]},
    {"version": 1, "steps": [{"quantize": {"preset": "w5"}}]},
    {"version": 1, "steps": [{"quantize": {"scheme": "W4A16", "fit": "4MB"}}]},
    {"version": 1, "steps": [{"quantize": 4}]},
    {"version": 1, "seed": -1, "steps": [{"quantize": {}}]},
    {"version": 1, "steps": [{"quantize": {}}, {"quantize": {}}]},
]
PLAN = {"format": "whet.plan", "version": 1, "target": "whet", "schemes": {}}
PLANS = [
    {**PLAN, "format": "plan"},
    {**PLAN, "version": 3},
    {"format": "whet.plan", "version": 1, "target": "whet"},
    {**PLAN, "schemes": []},
    {**PLAN, "schemes": {"a": 4}},
    {**PLAN, "schemes": {4: "keep", 5: "keep"}},
    {**PLAN, "budget": {"kind": "speed"}},
    {**PLAN, "budget": {"bytes": -1}},
    {**PLAN, "gap": {"bound": float("inf"), "relative": 0}},
    {**PLAN, "text": "corpus"},
    {**PLAN, "model": "tiny"},
]


@pytest.mark.parametrize(
    ("read", "value"), [*((recipe_arguments, v) for v in RECIPES), *((read_plan, v) for v in PLANS)]
)
def test_what_is_wrong_with_a_document_is_told_in_korean(read, value):
    """Its sentences are made of what pydantic says, so they are made here rather than found in the source."""
    with pytest.raises(UsageError) as error:
        read(value)
    korean = in_korean(str(error.value))
    assert HANGUL.search(korean) and not ENGLISH.search(korean), f"{error.value} -> {korean}"


def test_long_names_take_no_longer_than_their_length():
    """Paths and text that are full of what divides sentences."""
    awkward = "a: b, c (d) x e as f. Give g or h; it is i and has j " * 1200  # 64,000 letters
    started = time.process_time()
    for english in list(SENTENCES | REFUSALS)[::20]:
        told = re.sub(r"\{\w+\}", awkward, english.replace("{near}", ""))
        assert HANGUL.search(in_korean(told))
        assert in_korean(told + "!") != in_korean(told)
    assert time.process_time() - started < 20  # 1 s on a busy core
    for repeated in ("f, line ", "; its plan is another", "a and b more", " was b and is c", "the type of "):
        in_korean(repeated * 20_000)


def test_the_exception_itself_is_english(monkeypatch):
    monkeypatch.setenv("WHET_LANG", "ko")
    with pytest.raises(UsageError, match=r"^no-such-plan.json: there is no such file\. Give a plan"):
        read_plan("no-such-plan.json")
