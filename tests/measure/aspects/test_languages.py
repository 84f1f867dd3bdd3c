"""Languages: one that is damaged is told apart, and edge cases and what items say are read; knowledge is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from whet.errors import UsageError
from whet.measure.asked import Given
from whet.measure.aspects.aspect import Case, Sides
from whet.measure.aspects.knowledge import KNOWLEDGE, counts, lost_share, weight
from whet.measure.aspects.languages import LANGUAGES_KEPT, language_of, language_of_item
from whet.measure.items import parse_item
from whet.measure.skills import Outcome
from whet.measure.statistics import wilson
from whet.text import read_text

KOREAN, ENGLISH = "오늘은 날씨가 맑다", "the weather is fine"


def case(items: list[Any], texts: list[str], tokenizer: Any) -> Case:
    windows = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
    given = Given(windows, list(range(len(texts))), texts, {}, [], [])
    return Case(None, given, items, "causal")  # type: ignore[arg-type]


def outcomes(rights: list[bool]) -> list[Outcome]:
    return [Outcome("", right) for right in rights]


def read(told: dict[str, Any], figure: str) -> dict[str, dict[str, Any]]:
    return {one["of"]: one for one in told["readings"] if one["figure"] == figure}


def test_the_damaged_language_is_told_apart(original, tokenizer) -> None:
    texts = [KOREAN] * 16 + [ENGLISH] * 16 + ["123 456"] * 16
    lengths = [len(tokenizer(text)["input_ids"]) - 1 for text in texts]
    window = np.repeat(np.arange(len(texts)), lengths)
    kl = np.where(window < 16, 0.5 + 0.01 * window, 0.0).astype(np.float32)
    collected = {"window": window, "kl": kl, "agree": window >= 16}
    told = LANGUAGES_KEPT.measure(case([], texts, tokenizer), Sides(original, original, collected), print)
    divergence, same = read(told, "kl"), read(told, "top1")
    assert set(divergence) == {"ko", "latin"} == set(same)
    assert divergence["ko"]["interval"][0] > 0.4 and divergence["latin"]["value"] == 0 and divergence["latin"]["exact"]
    assert same["ko"]["value"] == 0 and same["latin"]["value"] == 1


def test_the_damaged_class_of_documents_is_told_apart(original, tokenizer, tmp_path) -> None:
    file = tmp_path / "text.jsonl"
    kinds = ["law"] * 16 + ["edge"] * 16 + [None] * 16
    records = [{"text": ENGLISH, **({} if kind is None else {"kind": kind})} for kind in kinds]
    file.write_text("\n".join(map(json.dumps, records)))
    documents = read_text(file, classes="kind").documents
    assert [document.of for document in documents] == [kind or "" for kind in kinds]
    length = len(tokenizer(ENGLISH)["input_ids"]) - 1
    window = np.repeat(np.arange(48), length)
    collected = {"window": window, "kl": (window // 16 == 1) * np.float32(0.5), "agree": window // 16 != 1}
    told = LANGUAGES_KEPT.measure(case([], documents, tokenizer), Sides(original, original, collected), print)
    divergence, same = read(told, "class_kl"), read(told, "class_top1")
    assert list(divergence) == ["edge", "law"] and divergence["edge"]["value"] == 0.5 and same["edge"]["value"] == 0
    assert divergence["law"]["value"] == 0 and same["law"]["value"] == 1
    with pytest.raises(UsageError, match=r"no field kin to tell classes of documents by.*Did you mean kind"):
        read_text(file, classes="kin")
    (plain := tmp_path / "plain.txt").write_text(ENGLISH)
    with pytest.raises(UsageError, match="plain text has no field kind"):
        read_text(plain, classes="kind")


def test_answers_by_language_and_edge_cases(original, tokenizer) -> None:
    records = [{"skill": "s", "prompt": prompt, "answer": "1"} for prompt in (KOREAN, ENGLISH) for _ in range(20)]
    records += [{"skill": "s", "prompt": ENGLISH, "answer": "1", "edge": True, "language": "de"} for _ in range(20)]
    items = [parse_item(record, "") for record in records]
    both = outcomes([True] * 60), outcomes([True] * 40 + [False] * 20)
    none = {"window": np.zeros(1, int), "kl": np.zeros(1), "agree": np.ones(1, bool)}
    told = LANGUAGES_KEPT.measure(case(items, ["1"], tokenizer), Sides(original, original, none, both), print)
    change, edge = read(told, "accuracy"), read(told, "edge")
    assert {of: one["value"] for of, one in change.items()} == {"de": -1, "ko": 0, "latin": 0}
    assert edge["s"]["value"] == -1 and list(edge) == ["s"]


def test_a_language_is_named_where_its_script_is_its_own() -> None:
    assert [language_of(text) for text in (KOREAN, ENGLISH, "12", "ελληνικά")] == ["ko", "latin", "", "el"]
    item = parse_item({"skill": "s", "prompt": "번역: hello", "answer": "안녕하세요", "count": 3}, "")
    assert language_of_item(item) == "ko" and item.count == 3 and parse_item(item.record(), "") == item


@pytest.mark.parametrize(("key", "value"), [("language", " "), ("edge", "yes"), ("count", -1), ("count", True)])
def test_what_an_item_says_of_itself_is_checked(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=key):
        parse_item({"skill": "s", "prompt": "p", "answer": "a", key: value}, "line 3")


def test_a_rare_answer_counts_more() -> None:
    assert [weight(n) for n in (0, 1, 15)] == [1, 0.5, 0.2]
    items = [parse_item({"skill": "s", "prompt": "p", "answer": a, **more}, "") for a, more in
             (("서울", {}), ("1392", {}), ("x", {"count": 9}))]  # fmt: skip
    assert counts(items, ["서울은", "서울에 1392", "서울은"]) == [2, 1, 9]
    share, ends = lost_share([1.0, 0.2, 0.2, 0.2, 0.2, 0.2], [True] + [False] * 5, list(range(6)))
    assert share == pytest.approx(0.5) and ends[0] < 0.2 < 0.8 < ends[1]
    assert lost_share([1.0] * 50, [False] * 50, list(range(50)))[1] == pytest.approx(wilson(0, 50))


@pytest.mark.parametrize(("items", "lost", "fit"), [(100, 0, False), (500, 0, True), (500, 20, False)])
def test_fit_only_where_a_loss_of_a_hundredth_is_excluded(items, lost, fit, original, tokenizer) -> None:
    asked = [parse_item({"skill": "s", "prompt": f"p{i}", "answer": f"a{i}"}, "") for i in range(items)]
    both = outcomes([True] * items), outcomes([False] * lost + [True] * (items - lost))
    told = KNOWLEDGE.measure(case(asked, ["text"], tokenizer), Sides(original, original, {}, both), print)
    assert told["fit"] is fit and len(told["examples"]) == min(lost, 5)
    assert ("cannot be excluded" in told["notes"][0]) is not fit
    assert told["readings"][0]["value"] == lost / items
