"""The journal: a line counts when it is whole and its file is what it says; everything else is done again."""

from __future__ import annotations

import pytest

from whet.walk import Journal


@pytest.fixture
def run(tmp_path):
    (tmp_path / ".whet").mkdir()
    return tmp_path / ".whet"


def shard(folder, name, data=b"data"):
    (folder / name).write_bytes(data)
    return folder / name


def test_what_was_recorded_is_read_back(run, tmp_path):
    journal = Journal(run)
    line = journal.record("block 0", shard(tmp_path, "a"), linears={"x": {"error": 0.1}}, seconds=1.5)
    journal.record("block 1", shard(tmp_path, "b"))
    again = Journal(run)
    assert again.entries == journal.entries and again.entries["block 0"] == line
    assert again.finished("block 0", tmp_path) == line and line["bytes"] == 4
    assert again.finished("block 2", tmp_path) is None


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_ignored_and_cut_off(run, tmp_path, cut):
    journal = Journal(run)
    journal.record("one", shard(tmp_path, "a"))
    whole = journal.path.read_bytes()
    journal.record("two", shard(tmp_path, "b"))
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:-cut])
    again = Journal(run)
    assert list(again.entries) == ["one"] and again.path.read_bytes() == whole
    again.record("two", tmp_path / "b")
    assert again.path.read_bytes() == data


@pytest.mark.parametrize("rubbish", [b"\0" * 64 + b"\n", b"{}\n", b"[1]\n", b'"text"\n', b'{"unit": \n', b"\xff\xfe\n"])
def test_rubbish_ends_what_is_believed(run, tmp_path, rubbish):
    journal = Journal(run)
    journal.record("one", shard(tmp_path, "a"))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + rubbish + whole)
    again = Journal(run)
    assert list(again.entries) == ["one"] and again.path.read_bytes() == whole


def test_a_file_that_is_gone_or_changed_is_not_finished(run, tmp_path):
    journal = Journal(run)
    journal.record("one", shard(tmp_path, "a"))
    shard(tmp_path, "a", b"dat_")
    assert journal.finished("one", tmp_path) is None
    (tmp_path / "a").unlink()
    assert journal.finished("one", tmp_path) is None
