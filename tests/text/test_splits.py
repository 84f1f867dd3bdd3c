"""Splits: disjoint, complete, seeded, and the same whatever the order of the documents."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.errors import UsageError
from whet.text import split

words = st.text(alphabet="ab가나 .\n", min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(words.filter(str.strip), min_size=25, max_size=60), st.integers(0, 9))
def test_splits_by_document_are_disjoint_complete_and_free_of_order(documents, seed):
    documents = [f"{i}{d}" for i, d in enumerate(documents)]
    documents += documents[:5]  # copies
    parts = split(documents, seed)
    if parts.how == "positions":
        return  # one document was over half of the text; the law below covers it
    kept = [set(parts.solve), set(parts.verify), set(parts.report)]
    assert not kept[0] & kept[1] and not kept[0] & kept[2] and not kept[1] & kept[2]
    assert sorted(parts.solve + parts.verify + parts.report) == sorted(documents)
    assert parts.verify and parts.report
    shuffled = documents.copy()
    random.Random(1).shuffle(shuffled)
    again = split(shuffled, seed)
    assert [set(again.solve), set(again.verify), set(again.report)] == kept


def test_shares_are_80_10_10_and_the_seed_matters():
    documents = [f"document {i}" for i in range(200)]
    parts = split(documents, 0)
    assert (len(parts.solve), len(parts.verify), len(parts.report)) == (160, 20, 20)
    assert parts == split(documents, 0)
    assert set(parts.report) != set(split(documents, 1).report)


@settings(max_examples=80, deadline=None)
@given(st.lists(words.filter(str.strip), min_size=1, max_size=12))
def test_splits_by_position_are_contiguous_and_complete(documents):
    documents = list(dict.fromkeys(documents))
    try:
        parts = split(documents)
    except UsageError:
        assert sum(map(len, documents)) < 200
        return
    assert parts.how == "positions"
    # white space alone may be lost where a cut leaves nothing else
    joined = "".join("".join(parts.solve + parts.verify + parts.report).split())
    assert joined == "".join("".join(documents).split())


def test_one_long_document_is_cut_at_line_ends_near_the_shares():
    lines = [f"line {i} has some words.\n" for i in range(1000)]
    text = "".join(lines)
    parts = split([text])
    assert parts.how == "positions"
    assert [len(p) for p in (parts.solve, parts.verify, parts.report)] == [1, 1, 1]
    assert parts.solve[0] + parts.verify[0] + parts.report[0] == text
    assert parts.solve[0].endswith(".\n") and parts.verify[0].endswith(".\n")
    assert abs(len(parts.solve[0]) / len(text) - 0.8) < 0.001 and abs(len(parts.report[0]) / len(text) - 0.1) < 0.001


def test_without_line_ends_sentences_are_kept_whole_in_english_and_korean():
    parts = split(["A sentence goes here. " * 300])
    assert parts.solve[0].endswith("here. ") and parts.verify[0].startswith("A sentence")
    parts = split(["고양이가 마루에서 잔다. " * 300])
    assert parts.solve[0].endswith("잔다. ") and parts.report[0].startswith("고양이가")


def test_one_giant_document_among_many_is_cut_by_position():
    documents = [f"small {i}" for i in range(30)] + ["word " * 2000]
    parts = split(documents)
    assert parts.how == "positions"
    assert sum(map(len, parts.solve)) > 0.75 * sum(map(len, documents))


@pytest.mark.parametrize("documents", [[], ["  ", "\n"]])
def test_no_text_is_an_error(documents):
    with pytest.raises(UsageError, match="empty"):
        split(documents)


def test_text_too_short_for_three_parts_is_an_error():
    with pytest.raises(UsageError, match="too short to be divided"):
        split(["word"])
