"""Large texts: what is read lies all over them, is whole, is the same each time, and is no more than asked for. The
limits are set low here, so that texts of some kilobytes are large."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.errors import UsageError
from whet.text import Amount, fingerprint, located_windows, read_text, split
from whet.text.places import places

LOW = Amount(most=8000, piece=500)
STORIES = [f"story {i}: " + f"{i} 가나다 words " * (5 + i % 9) for i in range(500)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=40), st.integers(1, 4000), st.integers(1, 600))
def test_places_lie_in_their_files_and_do_not_overlap(sizes, most, piece):
    found = places(sizes, Amount(most, piece))
    if sum(sizes) <= most:
        assert found is None
        return
    assert found == places(sizes, Amount(most, piece)) and len(found) == len(sizes)
    for size, spans in zip(sizes, found, strict=True):
        end = 0
        for span in spans:
            assert end <= span.start < span.end <= span.until <= span.after <= size
            end = span.after
    assert sum(span.end - span.start for spans in found for span in spans) <= max(most, piece)


@pytest.mark.parametrize(
    "said", [None, 3, {}, {"most": 5}, {"most": 5, "piece": 0}, {"most": 5, "piece": 6}, {"most": 1 << 50, "piece": 1}]
)
def test_what_a_lineage_says_of_an_amount_is_checked(said):
    assert Amount.read(said) is None
    assert Amount.read({"bytes": 9, "most": 5, "piece": 2}) == Amount(5, 2)


@pytest.mark.parametrize("separator", ["\n<|endoftext|>\n", "\n\n\n", "\r\n\r\n\r\n", "\f"])
def test_documents_of_a_large_file_are_read_whole_and_all_over_it(tmp_path, separator):
    path = tmp_path / "a.txt"
    path.write_bytes(separator.join(STORIES).encode())
    found = read_text(path, amount=LOW)
    place = {story.strip(): i for i, story in enumerate(STORIES)}
    numbers = [place[one.strip()] for one in found.documents]  # no document is a part of one
    assert numbers == sorted(set(numbers)) and numbers[0] == 0 and numbers[-1] > 450
    assert 4000 < sum(len(one.encode()) for one in found.documents) < 16_000
    assert found.read == {"bytes": path.stat().st_size, "most": 8000, "piece": 500}
    assert "MB are read, at places that are spread over all of it" in found.notes[0]
    assert fingerprint(read_text(path, amount=LOW).documents) == fingerprint(found.documents)
    assert read_text(path).documents == [story.strip("\n") for story in STORIES] and read_text(path).read is None


@pytest.mark.parametrize("between", [" ", "\n", ""])
def test_one_giant_document_gives_pieces_at_lines_or_words_and_never_half_a_letter(tmp_path, between):
    words = [f"낱말{i}" if between else "가" for i in range(20_000)]
    text = between.join(words)
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    found = read_text(path, amount=LOW).documents
    assert len(found) == 16 and all(piece.strip() in text for piece in found)
    if between:
        known = {*words}
        assert all({*piece.split()} <= known for piece in found)  # no word is cut
    assert text.index(found[-1].strip()) > 0.8 * len(text) or not between
    assert sum(len(piece.encode()) for piece in found) <= LOW.most + LOW.piece
    parts = split(found, 0)
    assert parts.solve and parts.verify and parts.report


def test_a_document_longer_than_a_place_is_cut_and_others_are_not_lost(tmp_path):
    long = "long words " * 3000
    path = tmp_path / "a.txt"
    path.write_text("\n\n\n".join([*STORIES[:200], long, *STORIES[200:400]]))
    found = read_text(path, amount=LOW).documents
    assert any(one in long for one in found) and any(one in STORIES for one in found)
    assert all(one in long or any(one.strip("\n") == s.strip("\n") for s in STORIES) for one in found)


def test_records_of_large_files_are_whole_and_all_over_them(tmp_path):
    import pyarrow
    from pyarrow import parquet

    lines = [json.dumps({"id": i, "text": story}, ensure_ascii=False) for i, story in enumerate(STORIES)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "a.json").write_text("[" + ",".join(lines) + "]", encoding="utf-8")
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(STORIES), encoding="utf-8")
    parquet.write_table(
        pyarrow.table({"id": [*range(500)], "text": STORIES}), tmp_path / "a.parquet", row_group_size=99
    )
    for kind in ("jsonl", "json", "csv", "parquet"):
        found = read_text(tmp_path / f"a.{kind}", amount=LOW).documents
        numbers = [STORIES.index(one) for one in found]
        assert numbers == sorted(set(numbers)) and numbers[0] < 60 and numbers[-1] > 440, kind
        assert 3000 < sum(len(one.encode()) for one in found) < 20_000, kind


def test_records_longer_than_places_are_read_whole_and_no_more_than_asked_for(tmp_path):
    texts = [f"{i} " + "word " * 600 for i in range(40)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    found = read_text(path, amount=LOW).documents
    assert found and all(one in texts for one in found)
    assert sum(map(len, found)) <= LOW.most + len(texts[0])


def test_a_bad_record_of_a_large_file_is_named_by_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": story}) for story in STORIES]
    path.write_text("\n".join(line if i < 250 else "nonsense " * 10 for i, line in enumerate(lines)))
    with pytest.raises(UsageError, match=r"a\.jsonl, line (2[5-9]\d|3\d\d): not JSON"):
        read_text(path, amount=LOW)
    assert read_text(path, amount=LOW, skip_bad=True).documents


def test_bytes_that_are_not_utf_8_are_named_where_they_stand(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("가나다 라\n".encode() * 1000 + b"\xff\n" * 10_000)
    with pytest.raises(UsageError, match=r"not UTF-8 at byte 14000 \(line 1001: byte 0xff\)"):
        read_text(path, amount=LOW)


def test_every_file_of_a_folder_may_be_read_and_small_ones_are_whole(tmp_path):
    for i, story in enumerate(STORIES[:200]):
        (tmp_path / f"{i:03d}.txt").write_text(story)
    (tmp_path / "large.jsonl").write_text("\n".join(json.dumps({"text": story}) for story in STORIES))
    found = read_text(tmp_path, amount=LOW).documents
    assert all(one in STORIES for one in found) and len(set(found)) > 20


def test_a_large_file_of_blank_lines_says_where_it_was_looked(tmp_path):
    (tmp_path / "a.txt").write_text("\n" * 100_000)
    with pytest.raises(UsageError, match="no text at 16 places that are spread over it"):
        read_text(tmp_path / "a.txt", amount=LOW)


def test_many_blank_lines_are_one_end_of_a_document(tmp_path):
    (tmp_path / "a.txt").write_text("one" + "\n" * 3_000_000 + "two")
    assert read_text(tmp_path / "a.txt").documents == ["one", "two"]


@pytest.mark.parametrize("count", [None, 5])
def test_a_long_document_is_tokenized_in_pieces_that_hold_its_windows(byte_tokenizer, count):
    text = " ".join(f"word{i}" for i in range(60_000))
    found = located_windows([text, "short " * 20], byte_tokenizer, count, 64, longest=100_000)
    for window in found:
        assert byte_tokenizer.decode(window.tokens) in (text if window.document == 0 else "short " * 20)
    assert len({(window.document, window.start) for window in found}) == len(found)
    if count is None:
        assert sum(len(window.tokens) for window in found if window.document == 0) >= len(text) - 8 * 20
    else:
        assert len(found) == count


def test_windows_of_documents_that_are_not_long_are_as_they_were(byte_tokenizer):
    documents = ["".join(chr(97 + (i * j) % 26) for i in range(5000)) for j in range(1, 90)]
    some = located_windows(documents, byte_tokenizer, 16, 64, seed=3)
    # what was drawn before long documents were cut in pieces
    assert [(w.document, w.start) for w in some[:4]] == [(64, 4484), (32, 1793), (21, 1152), (56, 3841)]
