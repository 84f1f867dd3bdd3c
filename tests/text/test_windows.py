"""Windows: inside one document, disjoint, seeded; batches hold every window once and pad nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.errors import UsageError
from whet.text import batch_indices, batches, located_windows, windows

texts = st.lists(st.text(alphabet="abc 가나다\n", min_size=0, max_size=90), min_size=1, max_size=12)


@settings(max_examples=80, deadline=None)
@given(texts, st.one_of(st.none(), st.integers(1, 30)), st.integers(8, 40), st.integers(0, 5))
def test_windows_lie_in_one_document_and_do_not_overlap(byte_tokenizer, documents, count, length, seed):
    rows = {i: byte_tokenizer(d)["input_ids"] for i, d in enumerate(documents) if d.strip()}
    try:
        found = located_windows(documents, byte_tokenizer, count, length, seed)
    except UsageError:
        assert sum(map(len, rows.values())) < length or all(len(row) < 8 for row in rows.values())
        return
    taken: set[tuple[int, int]] = set()
    for window in found:
        end = window.start + len(window.tokens)
        assert window.tokens.tolist() == rows[window.document][window.start : end]
        assert 8 <= len(window.tokens) <= length
        places = {(window.document, position) for position in range(window.start, end)}
        assert not places & taken
        taken |= places
    again = located_windows(documents, byte_tokenizer, count, length, seed)
    assert [(w.document, w.start) for w in again] == [(w.document, w.start) for w in found]
    if count is None:
        # all of the text is there, but for ends of under 8 tokens
        assert len(taken) >= sum(len(row) - 7 if len(row) % length else len(row) for row in rows.values())
    else:
        assert len(found) <= count


def test_sampled_windows_of_long_documents_are_full_and_seeds_differ(byte_tokenizer):
    documents = ["".join(chr(97 + (i * j) % 26) for i in range(500)) for j in range(1, 9)]
    found = windows(documents, byte_tokenizer, 16, 64, seed=0)
    assert len(found) == 16 and all(w.shape == (64,) and w.dtype == torch.int64 for w in found)
    other = windows(documents, byte_tokenizer, 16, 64, seed=1)
    assert any(not torch.equal(a, b) for a, b in zip(found, other, strict=True))


def test_sampling_reaches_every_document_equally_by_length(byte_tokenizer):
    documents = ["a" * 640, "b" * 64]
    picked = [located_windows(documents, byte_tokenizer, 1, 64, seed)[0].document for seed in range(400)]
    assert 0.04 < sum(picked) / 400 < 0.16  # one of eleven windows is in the short one


def test_bos_comes_only_where_the_tokenizer_puts_it_and_a_document_starts(bos_tokenizer, byte_tokenizer):
    pieces = located_windows(["x" * 40], bos_tokenizer, None, 16)
    assert [w.tokens[0].item() == 0 for w in pieces] == [True, False, False]
    assert [len(w.tokens) for w in pieces] == [16, 16, 9]
    # a chat template that writes the bos itself does not get a second one
    written = windows(["<s>" + "x" * 40], bos_tokenizer, None, 41)[0]
    assert written[0] == 0 and (written == 0).sum() == 1
    assert not any((w == 0).any() for w in windows(["x" * 40], byte_tokenizer, None, 16))


def test_text_shorter_than_a_window_names_file_tokens_window_and_remedy(byte_tokenizer):
    with pytest.raises(
        UsageError, match=r"my\.txt: text shorter than a window: it has 20 tokens, one window is 64.*at most 20"
    ):
        windows(["x" * 12, "y" * 8], byte_tokenizer, 4, 64, source="my.txt")
    # but short documents that add up to more are shorter windows
    assert sorted(len(w) for w in windows(["x" * 12, "y" * 60], byte_tokenizer, 4, 64)) == [12, 60]


@pytest.mark.parametrize(
    ("documents", "count", "length", "message"),
    [
        ([], 1, 16, "is empty"),
        (["  \n"], 1, 16, "is empty"),
        (["abc"] * 9, 1, 16, "all 9 documents are shorter than 8"),
        (["a" * 99], 1, 4, "too short to tell"),
        (["a" * 99], 0, 16, "0 windows"),
    ],
)
def test_what_cannot_be_cut_is_said(byte_tokenizer, documents, count, length, message):
    with pytest.raises(UsageError, match=message):
        windows(documents, byte_tokenizer, count, length)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=40), st.integers(1, 60))
def test_batches_hold_every_window_once_in_equal_lengths(lengths, max_tokens):
    groups = batch_indices(lengths, max_tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len({lengths[i] for i in group}) == 1
        assert len(group) == 1 or len(group) * lengths[group[0]] <= max_tokens
    rows = [torch.full((n,), i) for i, n in enumerate(lengths)]
    assert [b.tolist() for b in batches(rows, max_tokens)] == [[rows[i].tolist() for i in g] for g in groups]
