"""Every note that the rooms make has its Korean, and what it names survives."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from report.raised import HANGUL, SOURCE, fields
from whet.report.sentences import SENTENCES, in_korean
from whet.steps.rounds import Round
from whet.steps.rounds import _told as told

# Functions that return sentences, and what they gather them in.
RETURN = {"no_file_yet", "left_out", "_without_ragged", "not_followed", "_left_alone", "_summary"}
RETURN |= {"_told_by_group", "_told_of_whole"}


def made(node: ast.AST) -> Iterator[str]:
    """What the strings under `node` that are sentences say, with X1, X2, … for what they name."""
    inner = {id(part) for each in ast.walk(node) if isinstance(each, ast.JoinedStr) for part in ast.walk(each)}
    for each in ast.walk(node):
        if isinstance(each, ast.JoinedStr):
            number = iter(range(1, 99))
            said = "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"X{next(number)}" for part in each.values
            )
        elif isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in inner:
            said = each.value
        else:
            continue
        if said.count(" ") >= 3 and not said.startswith((" ", ",", ";")):  # those are ends of others
            yield said


def notes() -> Iterator[tuple[str, str]]:
    """Where and what: everything put among notes, told as a note, or returned by a function that makes them."""
    for file in sorted(SOURCE.rglob("*.py")):
        if file.parent.name in ("report", "cli"):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            found: list[ast.AST] = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
                found = list(node.args) if ast.unparse(node.func.value).endswith("notes") else []
            elif isinstance(node, ast.Assign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found = [node.value] if any(ast.unparse(t).endswith("notes") for t in targets) else []
            elif isinstance(node, ast.Dict):
                entries = {ast.unparse(k): v for k, v in zip(node.keys, node.values, strict=True) if k is not None}
                found = [entries["'message'"]] if {"'event'", "'message'"} <= set(entries) else []
            elif isinstance(node, ast.FunctionDef) and node.name in RETURN:
                found = [part for part in node.body if not isinstance(part, ast.Expr)]
            for part in found:
                yield from ((f"{file.relative_to(SOURCE)}:{node.lineno}", said) for said in made(part))


@pytest.mark.parametrize(("where", "said"), sorted(set(notes())))
def test_every_note_has_korean(where, said):
    assert HANGUL.search(in_korean(said)), f"{where}: no Korean for {said!r} in report/sentences.py"


def test_korean_names_what_the_english_names():
    for english, korean in SENTENCES.items():
        assert fields(korean) == fields(english), english
        assert HANGUL.search(korean), english


def test_what_is_named_survives_and_reasons_are_told_too():
    assert in_korean("the plan takes 1,234 bytes of tensors, more than the 1,000 of its budget").startswith(
        "계획의 텐서는 1,234바이트로 예산의 1,000바이트"
    )
    whole = in_korean("blocks are trained with every error of their output weighed alike, and nothing after them: no "
                      "table says what its parts are")  # fmt: skip
    assert whole.endswith("표가 없습니다") and "table" not in whole
    plan = {"predicted": {"bytes": 1234567, "kl": 0.01}, "schemes": {}}
    one = Round(plan, 0.02, 0.9, {"facts": 0.97}, {"facts": 0.9}, {})
    assert in_korean(told(one, 0)).endswith("0.970 (facts)") and HANGUL.search(in_korean(told(one, 0)))
    assert in_korean("what no table has") == "what no table has"
