"""Streams: the same documents as reading whole, without holding more than one of them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from whet.errors import UsageError
from whet.text import Stream, read_text
from whet.text.plain import plain_documents, streamed_documents

PIECES = ["a", "가나 다", "\n", "\n\n\n", "\r\n", "\r", "\f", " ", "\t", "<|endoftext|>", "\n<|endoftext|>\n", "x<|end"]


def test_plain_text_is_cut_alike_however_little_is_read_at_once(tmp_path: Path) -> None:
    rng, file = Random(0), tmp_path / "a.txt"
    for _ in range(300):
        file.write_bytes("".join(rng.choice(PIECES) for _ in range(rng.randrange(40))).encode())
        whole = [text for text in plain_documents(file, None) if text.strip()]
        for at_once in (1, 2, 7, 50):
            assert [text for text in streamed_documents(file, at_once) if text.strip()] == whole


def test_a_stream_gives_what_reading_gives_with_the_file_of_each(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n\ntwo", encoding="utf-8")
    records = [{"text": "셋"}, {"text": " "}, {"text": "four"}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    (tmp_path / "README.md").write_text("about the records", encoding="utf-8")
    stream = Stream(tmp_path)
    assert list(stream) == [("one", "a.txt"), ("two", "a.txt"), ("셋", "b.jsonl"), ("four", "b.jsonl")]
    assert [text for text, _ in stream] == read_text(tmp_path).documents
    assert stream.bytes == sum((tmp_path / name).stat().st_size for name in ("a.txt", "b.jsonl"))


def test_a_readme_among_texts_alone_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("one", encoding="utf-8")
    (tmp_path / "b.md").write_text("two", encoding="utf-8")
    assert read_text(tmp_path).documents == ["one", "two"]


def test_what_is_wrong_is_said_as_in_reading(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        Stream(tmp_path / "nowhere.txt")
    bad = tmp_path / "a.txt"
    bad.write_bytes(b"good \xff bad")
    with pytest.raises(UsageError, match="not UTF-8 at byte 5"):
        list(Stream(bad))
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"text": "one"}\nno JSON\n', encoding="utf-8")
    with pytest.raises(UsageError, match="line 2: not JSON"):
        list(Stream(lines))
    stream = Stream(lines, skip_bad=True)
    assert list(stream) == [("one", "a.jsonl")] and len(stream.notes) == 1
