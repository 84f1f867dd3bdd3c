"""Reading: documents come out as they went in; what cannot be read is said with its place and the remedy."""

from __future__ import annotations

import json
import sys

import pytest

from whet.errors import MachineError, UsageError
from whet.text import ChatTemplate, fingerprint, read_text

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"


def documents(*given, **more):
    return read_text(*given, **more).documents


@pytest.mark.parametrize("separator", ["\n<|endoftext|>\n", "\f", "\n\n\n", "\n\n \t\n\n", "\r\n\r\n\r\n"])
def test_each_separator_ends_a_document(tmp_path, separator):
    path = tmp_path / "a.txt"
    path.write_bytes(f"하나\n\nstill one{separator}  둘\n".encode())
    assert documents(path) == ["하나\n\nstill one", "  둘"]


def test_a_file_without_separators_is_one_document_and_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "가나다 <|endoftext|> inside a line\n\nnext".encode())
    assert documents(path) == ["가나다 <|endoftext|> inside a line\n\nnext"]


def test_json_lines_keep_order_and_text_exactly(tmp_path):
    texts = ["one", "둘\n\n\n두 줄", "three\u2028 parts"]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"body": t}, ensure_ascii=False) for t in texts) + "\n\n", encoding="utf-8")
    assert documents(path, field="body") == texts


def test_parquet_gives_the_same_documents_as_json_lines(tmp_path):
    import pyarrow
    from pyarrow import parquet

    texts = ["one", "둘\n\n\n두 줄", ""]
    parquet.write_table(pyarrow.table({"id": [1, 2, 3], "text": texts}), tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet") == texts[:2]
    with pytest.raises(UsageError, match=r"no field txt; the fields are: id, text\. Did you mean text\?"):
        documents(tmp_path / "a.parquet", field="txt")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UsageError, match="not a readable parquet"):
        documents(tmp_path / "b.parquet")


@pytest.mark.parametrize("name", ["pyarrow", "datasets"])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{name}.lib", None)
    path = tmp_path / "a.parquet"
    path.write_bytes(b"")
    extra = "parquet" if name == "pyarrow" else "hub"
    with pytest.raises(MachineError, match=rf'pip install "whet\[{extra}\]"'):
        documents(path if name == "pyarrow" else "owner/dataset")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": ', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n["b"]', r"line 2: a JSON object was expected, found list"),
        ("a.jsonl", b'{"test": "a", "id": 1}', r"no field text; the fields are: test, id\. Did you mean test\?"),
        ("a.jsonl", b'{"text": null}', r"line 1: field text holds NoneType"),
        ("a.jsonl", b'{"text": [{"role": "user"}]}', r"To read conversations, ask for chat"),
        ("a.txt", b"fine\nbad \xff\xfe here", r"not UTF-8 at byte 9 \(line 2: byte 0xff\).*CP949"),
        ("a.txt", "utf-16".encode("utf-16"), r"UTF-16"),
        ("a.txt", b" \n\n", r"no text in it"),
        ("a.jsonl", b'{"text": " "}', r"no text in it"),
        ("a.xlsx", b"PK", r"not \.xlsx.*\.jsonl"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, file, content, message):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        documents(tmp_path / file)


def test_a_folder_gives_the_documents_of_its_files_in_order(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}')
    (tmp_path / "sub" / "c.md").write_text("three")
    (tmp_path / "image.png").write_bytes(b"\xff")
    assert documents(tmp_path) == ["one", "two", "three"]


def test_a_missing_file_suggests_its_neighbour_and_a_folder_without_text_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("x")
    with pytest.raises(UsageError, match=r"no such file\. Did you mean train\.txt\?"):
        documents(tmp_path / "trian.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"is a folder with no \.txt"):
        documents(tmp_path / "empty")


def test_chat_renders_with_the_template_of_the_tokenizer(tmp_path, byte_tokenizer, monkeypatch):
    path = tmp_path / "a.jsonl"
    talk = [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "응."}]
    path.write_text(json.dumps({"messages": talk}), encoding="utf-8")
    with pytest.raises(UsageError, match="has none"):
        documents(path, chat=True, tokenizer=byte_tokenizer)
    with pytest.raises(UsageError, match="no tokenizer was given"):
        documents(path, chat=True)
    monkeypatch.setattr(byte_tokenizer, "chat_template", CHAT)
    assert documents(path, chat=True, tokenizer=byte_tokenizer) == ["<user>안녕?<assistant>응."]
    monkeypatch.setattr(byte_tokenizer, "chat_template", "{{ raise_exception('only users') }}")
    with pytest.raises(UsageError, match=r"line 1: the chat template refused.*only users"):
        documents(path, chat=True, tokenizer=byte_tokenizer)
    path.write_text(json.dumps({"messages": "hello"}))
    with pytest.raises(UsageError, match="non-empty list"):
        documents(path, chat=True, tokenizer=byte_tokenizer)


def test_chat_templates_run_in_a_sandbox(tmp_path, byte_tokenizer, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "x"}]}))
    monkeypatch.setattr(byte_tokenizer, "chat_template", "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(UsageError, match="SecurityError"):
        documents(path, chat=True, tokenizer=byte_tokenizer)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "has not written"),
        ("{{ 'a' * 10 ** 11 }}", "takes too much memory"),
        ("{{ 'a' * 2000 }}", "writes 2000 letters"),
    ],
)
def test_a_template_that_does_not_end_is_stopped(byte_tokenizer, monkeypatch, template, message):
    monkeypatch.setattr(byte_tokenizer, "chat_template", template)
    with ChatTemplate(byte_tokenizer, seconds=1, most=1000) as chat:
        with pytest.raises(UsageError, match=f"^here: .*{message}"):
            chat.render([{"role": "user", "content": "x"}], "here")
        monkeypatch.setattr(byte_tokenizer, "chat_template", CHAT)
        chat.close()
        assert chat.render([{"role": "user", "content": "x"}], "here") == "<user>x"


def test_the_fingerprint_changes_with_content_order_and_boundaries():
    same = fingerprint(["가", "b"])
    assert same == fingerprint(("가", "b")) and len(same) == 64
    assert len({same, fingerprint(["b", "가"]), fingerprint(["가b"]), fingerprint(["가", "b", ""])}) == 4
