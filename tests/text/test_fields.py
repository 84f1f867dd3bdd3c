"""Forms of data sets: each gives the documents it should, what was guessed is told, the rest is refused."""

from __future__ import annotations

import json

import pytest

from whet.errors import UsageError
from whet.text import read_text

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
QUESTION, ANSWER = "How many are two and two?", "They are four."
TURNS = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
SHAREGPT = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
WRITTEN = f"<user>{QUESTION}<assistant>{ANSWER}"


@pytest.fixture
def chat_tokenizer(byte_tokenizer, monkeypatch):
    monkeypatch.setattr(byte_tokenizer, "chat_template", CHAT)
    return byte_tokenizer


def jsonl(path, *records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "record",
    [
        {"messages": TURNS},
        {"id": "a", "conversations": SHAREGPT},
        {"instruction": QUESTION, "input": "", "output": ANSWER},
        {"prompt": QUESTION, "completion": ANSWER},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"question": QUESTION, "answer": ANSWER},
    ],
)
@pytest.mark.parametrize("asked", [False, True])
def test_conversations_of_every_form_are_written_with_the_template(tmp_path, chat_tokenizer, record, asked):
    found = read_text(jsonl(tmp_path / "a.jsonl", record, record), chat=asked, tokenizer=chat_tokenizer)
    assert found.documents == [WRITTEN] * 2
    assert bool(found.notes) is not asked  # what was asked for is not told
    assert asked or "written with the model's chat template" in found.notes[0]


def test_without_a_template_questions_are_followed_by_their_answers_and_turns_are_refused(tmp_path, byte_tokenizer):
    alpaca = {"instruction": "Add.", "input": "2 and 2", "output": "4"}
    found = read_text(jsonl(tmp_path / "a.jsonl", alpaca), tokenizer=byte_tokenizer)
    assert found.documents == ["Add.\n\n2 and 2\n\n4"] and "one behind the other" in found.notes[0]
    pairs = [{"prompt": "2 + 2 =", "completion": " 4"}, {"prompt": "One?", "completion": "Two."}]
    assert read_text(jsonl(tmp_path / "b.jsonl", *pairs)).documents == ["2 + 2 = 4", "One?\nTwo."]
    for record in ({"messages": TURNS}, {"conversations": SHAREGPT}):
        with pytest.raises(UsageError, match=r"line 1: field \w+ holds conversations.*--chat"):
            read_text(jsonl(tmp_path / "c.jsonl", record), tokenizer=byte_tokenizer)


def test_alpaca_puts_input_after_the_instruction_and_system_first(tmp_path, chat_tokenizer):
    record = {"instruction": "Add.", "input": "2 and 2", "output": "4", "system": "Be brief."}
    found = read_text(jsonl(tmp_path / "a.jsonl", record), tokenizer=chat_tokenizer)
    assert found.documents == ["<system>Be brief.<user>Add.\n\n2 and 2<assistant>4"]


def test_the_only_field_that_holds_text_is_read_and_told_of(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"id": "x1", "body": "some words here", "n": 3}, {"id": "x2", "body": "more"})
    found = read_text(path)
    assert found.documents == ["some words here", "more"]
    assert found.notes == (f"{path} has no field text: body is read, the only one that holds text",)
    assert read_text(path, field="id").documents == ["x1", "x2"] and not read_text(path, field="id").notes
    two = jsonl(tmp_path / "b.jsonl", {"title": "some words", "body": "some words here"})
    with pytest.raises(UsageError, match=r"line 1: there is no field text; the fields are: title, body.*--field"):
        read_text(two)


def test_tables(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffid,text\n1,"one, ""two""\nthree"\n\n2,four\n', encoding="utf-8")
    assert read_text(tmp_path / "a.csv").documents == ['one, "two"\nthree', "four"]
    (tmp_path / "b.csv").write_text("id;text\n1;one, two\n", encoding="utf-8")
    assert read_text(tmp_path / "b.csv").documents == ["one, two"]
    (tmp_path / "c.tsv").write_text('id\tdocument\n1\t"quoted ""so"""\n2\t"open quote\n3\t줄 둘\n', encoding="utf-8")
    found = read_text(tmp_path / "c.tsv")
    assert found.documents == ['quoted "so"', '"open quote', "줄 둘"] and "document is read" in found.notes[0]
    (tmp_path / "d.csv").write_text("id,text\n1,a,b\n")
    with pytest.raises(UsageError, match=r"d\.csv, line 2: 3 fields, and the first line names 2"):
        read_text(tmp_path / "d.csv")
    (tmp_path / "e.csv").write_text("text\n" + "x" * 300_000 + "\n")  # csv's own limit is 131,072
    assert len(read_text(tmp_path / "e.csv").documents[0]) == 300_000
    (tmp_path / "f.csv").write_bytes(b"text\nfine\n\xff\n")
    with pytest.raises(UsageError, match=r"f\.csv: not UTF-8 at byte 10 \(line 3"):
        read_text(tmp_path / "f.csv")


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read_record_by_record(tmp_path, indent):
    texts = [f'{i} [ ] }} " \\ 가' * (i % 7 + 1) for i in range(500)] + ["long " * 40_000, "end"]
    (tmp_path / "a.json").write_text(json.dumps([{"text": t} for t in texts], indent=indent, ensure_ascii=False))
    assert read_text(tmp_path / "a.json").documents == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}', "a list of objects was expected"),
        ("", "a list of objects was expected"),
        ('[{"text": "a"}, {"text": ', "record 2 is not JSON"),
        ('[{"text": "a"}, 3]', "row 2: a JSON object was expected, found int"),
        ('[{"text": "a"}', "record 2 is not JSON"),
        ("[" + "[" * 100_000, "record 1 is not JSON"),
        ("[]", "no text in it"),
    ],
)
def test_a_json_file_that_is_none_of_records_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_text(tmp_path / "a.json")


def test_bad_records_are_left_out_on_request_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\nnonsense\n{"text": null}\n{"body": "x"}\n\xff\n[]\n{"text": "two"}\n')
    with pytest.raises(UsageError, match=r"a\.jsonl, line 2: not JSON"):
        read_text(path)
    found = read_text(path, skip_bad=True)
    assert found.documents == ["one", "two"]
    assert "5 record(s) could not be read" in found.notes[0] and "line 2: not JSON" in found.notes[0]
    (tmp_path / "b.csv").write_text("id,text\n1,a,b\n2,fine\n")
    assert read_text(tmp_path / "b.csv", skip_bad=True).documents == ["fine"]
    path.write_text("nonsense\nnonsense\n")
    with pytest.raises(UsageError, match=r"line 1: not JSON"):  # of none that can be read the first is told
        read_text(path, skip_bad=True)


def test_a_conversation_that_the_template_refuses_may_be_left_out(tmp_path, byte_tokenizer, monkeypatch):
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    monkeypatch.setattr(byte_tokenizer, "chat_template", refusing)
    path = jsonl(
        tmp_path / "a.jsonl", {"messages": TURNS}, {"messages": [{"role": "system", "content": "x"}]}, {"messages": 3}
    )
    with pytest.raises(UsageError, match=r"line 2: the chat template refused.*no system"):
        read_text(path, chat=True, tokenizer=byte_tokenizer)
    found = read_text(path, chat=True, tokenizer=byte_tokenizer, skip_bad=True)
    assert found.documents == [WRITTEN] and "2 record(s)" in found.notes[0]
