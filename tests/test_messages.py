"""Messages are English for programs; every one has its translation, which names what the English names."""

from __future__ import annotations

import ast
import copy
import importlib
import json
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from whet.budget import read_plan
from whet.errors import MachineError, UsageError, did_you_mean
from whet.events import note_event
from whet.foreign import SENTENCES, recognized
from whet.messages import Message, catalogue, first_of, in_language, listed, read_po, to_json, with_and, with_or
from whet.recipe.schema import recipe_arguments

BENCH = str(Path(__file__).resolve().parents[1] / "bench")
sys.path.insert(0, BENCH)
extraction = importlib.import_module("messages")
sys.path.remove(BENCH)
TEMPLATES = sorted(extraction.templates())
# Three English words in a row are a part that was not translated; `whet compress` and `lm-eval ls tasks` are not.
ENGLISH = re.compile(r"(?<![-\w])[a-z]{2,}(?: [a-z]{2,}){2}")
HANGUL = re.compile("[가-힣]")


def korean(message: str) -> str:
    return in_language(message, "ko")


def is_korean(text: str) -> bool:
    return bool(HANGUL.search(text)) and not ENGLISH.search(text)


# the source


def test_templates_are_literals_and_values_are_those_they_name() -> None:
    for call in extraction.calls():
        assert call.template is not None, f"{call.where}: write the template as a literal and its values as arguments"
        named = {name for name, *_ in extraction.fields(call.template)}
        assert call.names in (None, named), call.where


def test_a_template_that_is_none_is_found(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text(
        "class WhetError:\n"
        "    def __init__(self, template, /, **values): ...\n"
        "class UsageError(WhetError): ...\n"
        "def bad(path, template, /, **values): return UsageError(template, **values)\n"
        "raise UsageError(f'{path} is a file')\n"
        "raise bad(path, text)\n"
        "raise bad(path, '{name} is gone', nam=name)\n"
    )
    found = [(call.where, call.template, call.names) for call in extraction.calls(tmp_path)]
    assert found == [
        ("some.py:5", None, frozenset()),
        ("some.py:6", None, frozenset()),
        ("some.py:7", "{name} is gone", frozenset({"nam"})),
    ]


def raised_plainly() -> Iterator[str]:
    """Where an event `note` is made by hand, which has no template."""
    for file in sorted(extraction.SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            keys = [ast.unparse(key) for key in node.keys if key is not None] if isinstance(node, ast.Dict) else []
            if "'event'" in keys and "'message'" in keys:
                yield f"{file.name}:{node.lineno}"


def test_notes_are_told_as_messages() -> None:
    assert list(raised_plainly()) == []


# the catalogues


@pytest.mark.parametrize("file", sorted(extraction.LOCALE.glob("*.po")), ids=lambda file: file.stem)
def test_a_catalogue_has_every_template_and_no_other(file: Path) -> None:
    entries = [entry for entry in read_po(file.read_text(encoding="utf-8")) if entry[0]]
    assert [template for template, _, _ in entries] == TEMPLATES, "make messages"
    for template, translation, flags in entries:
        assert translation.strip() and "fuzzy" not in flags, template
        assert extraction.fields(translation) == extraction.fields(template), template
        assert ("python-brace-format" in flags) == bool(extraction.fields(template)), template


def test_korean_is_korean() -> None:
    for template, translation in catalogue("ko").items():
        words = "".join(literal for literal, *_ in Formatter().parse(translation))
        # what a list or a sentence of a library is made of may be marks alone
        assert is_korean(words) or template == "input should be {what}", template


def test_updating_keeps_translations_and_guesses_those_of_changed_templates() -> None:
    known = {
        "{path} is a file.": ("{path}은(는) 파일입니다.", False),
        "kept": ("그대로", False),
        "gone": ("없음", False),
    }
    found = extraction.updated(known, {"{path} is a file!", "kept", "quite another thing"})
    assert found == {
        "{path} is a file!": ("{path}은(는) 파일입니다.", True),
        "kept": ("그대로", False),
        "quite another thing": ("", False),
    }
    assert extraction.updated(found, set(found)) == found
    long = "{path}: " + "무엇이든 " * 40 + '"따옴표"와 \\ 그리고 끝. '
    text = extraction.written({"a": ("", False), "b {path}": (long, False), **found}, "ko")
    entries = {template: (translation, flags) for template, translation, flags in read_po(text)}
    assert entries["b {path}"][0] == long and "fuzzy" in entries["{path} is a file!"][1]
    assert entries["a"] == ("", "") and "Language: ko\n" in entries[""][0]


# a message


def test_a_message_is_its_english_text_and_keeps_what_it_is_made_of() -> None:
    message = Message("{out} has {free:.1f} GB, {name!r}", out=Path("a/b"), free=2.25, name="x")
    assert message == "a/b has 2.2 GB, 'x'" and isinstance(message, str)
    assert message.template == "{out} has {free:.1f} GB, {name!r}" and message.values["free"] == 2.25
    for other in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert other == message and other.template == message.template and other.values == message.values
    assert Message("a {{brace}} of {value}", value="{none}") == "a {brace} of {none}"


def test_an_error_is_english_and_tells_template_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHET_LANG", "ko")
    with pytest.raises(UsageError, match=r"^no-such-plan.json: there is no such file\. Give a plan") as found:
        read_plan("no-such-plan.json")
    assert found.value.template == "{path}: there is no such file.{near} Give a plan that whet plan wrote."
    assert found.value.values["path"] == Path("no-such-plan.json")
    again = pickle.loads(pickle.dumps(MachineError("{path} is full", path="a")))
    assert str(again) == "a is full" and again.values == {"path": "a"}


def test_messages_within_messages_are_translated_and_particles_fit() -> None:
    where = Message("{path}, line {line}", path="a.jsonl", line=3)
    assert korean(Message("{where}: skill is blank. Name the skill, as the report will.", where=where)).startswith(
        "a.jsonl의 3번째 줄: skill이 비어"
    )
    tail = "{source} is not a plan: a plan is a JSON object. Make one with whet plan."
    assert korean(Message(tail, source=Message("the plan"))).startswith("계획은 계획이 아닙니다")
    assert korean(Message(tail, source="plan.json")).startswith("plan.json은 계획이")
    assert korean(Message("damping raised from {old:g} to {new:g}", old=0.5, new=1)) == "감쇠를 0.5에서 1로 높였습니다"
    hint = did_you_mean("modls", ["models"])
    assert korean(hint) == " 혹시 models입니까?" and did_you_mean("x", ["models"]) == ""


def test_lists_are_told_item_by_item() -> None:
    reasons = [
        Message("{name} was {before!r} and is {now!r}", name="seed", before=0, now=1),
        Message("its plan is another"),
    ]
    assert listed(reasons, "; ") == "seed was 0 and is 1; its plan is another"
    assert korean(listed(reasons, "; ")) == "seed가 0에서 1로 바뀌었습니다; 계획이 다릅니다"
    assert first_of("abcde") == "a, b, c and 2 more" and korean(first_of("abcde")) == "a, b, c 외 2개"
    assert first_of("abc") == "a, b, c" and first_of([]) == ""
    assert with_or("ab") == "a or b" and korean(with_or("ab")) == "a 또는 b"
    assert (
        with_and("abc") == "a and b and c"
        and korean(with_and([Message("embedding"), Message("head")])) == "임베딩과 출력층"
    )


def test_what_has_no_translation_is_english() -> None:
    for message in ("any words", Message("no template of {whet}", whet="whet")):
        assert korean(message) == message
    assert in_language(Message("its plan is another"), "en") == "its plan is another"


# JSON


def test_json_holds_message_template_and_values_and_gives_them_back() -> None:
    scheme = Message("{some} and {count} more", some=listed(["a", "b"]), count=2)
    message = Message("{source} has no scheme for {names}. Give each one, or keep to leave it as it is.",
                      source=Path("plan.json"), names=scheme)  # fmt: skip
    document = json.loads(json.dumps(to_json({"notes": [message], "other": ("x", 1, None)})))
    assert document["other"] == ["x", 1, None] and document["notes"][0]["message"] == message
    assert document["notes"][0]["values"]["names"]["values"]["count"] == 2
    again = Message.read(document["notes"][0])
    assert again == message and korean(again) == korean(message) and "외 2개" in korean(again)
    assert to_json(again) == document["notes"][0]  # so a run that was stopped writes what an undisturbed one does
    assert Message.read(note_event(message)) == message and note_event(message)["event"] == "note"


def test_what_json_cannot_hold_is_text_in_it_and_the_english_stands() -> None:
    message = Message("damping raised from {old:g} to {new:g}", old=float("nan"), new=2)
    stored = to_json(message)
    assert stored["values"] == {"old": "nan", "new": 2} and json.dumps(stored, allow_nan=False)
    assert korean(Message.read(stored)) == message


def test_notes_of_old_folders_are_plain_strings_and_told_as_they_are() -> None:
    old = Message.read("the plan takes 12 bytes of tensors, more than the 10 of its budget")
    assert old == korean(old) == "the plan takes 12 bytes of tensors, more than the 10 of its budget"


@pytest.mark.parametrize(
    "hostile",
    [
        {"message": "m", "template": "{a.__class__}", "values": {"a": "x"}},
        {"message": "m", "template": "{x:>999999999}", "values": {"x": 1}},
        {"message": "m", "template": "{total:,} {x", "values": {}},
        {"message": "m", "template": "damping raised from {old:g} to {new:g}", "values": {"old": "x"}},
        {"message": "m", "template": "damping raised from {old:g} to {new:g}", "values": {"old": "x", "new": []}},
        {"message": "m", "template": ["its plan is another"], "values": 3},
        {"message": "m"},
    ],
)
def test_a_file_formats_nothing_of_its_own(hostile) -> None:
    assert korean(Message.read(hostile)) == "m"


def test_a_file_may_nest_without_end() -> None:
    note: dict = {"message": "m", "template": "its plan is another", "values": {}}
    for _ in range(10_000):
        note = {"message": "m", "template": "{source}, steps[0].quantize.preset", "values": {"source": note}}
    assert korean(Message.read(note)) == "m" + "의 steps[0].quantize.preset" * 9
    much = {"message": "m", "template": "{a}" * 100_000, "values": {"a": "b" * 100_000}}
    assert korean(Message.read(much)) == "m"
    assert Message.read(3) == "3" and Message.read({}) == "" and Message.read(None) == "None"


# what libraries say


def test_sentences_of_libraries_are_known_by_their_wording() -> None:
    text = "Invalid value for '--samples': Input should be greater than or equal to 1."
    found = recognized(text)
    assert found == text and korean(found) == "'--samples'의 값: 1 이상이어야 합니다."
    assert korean(recognized("No such option: --sheme.")) == "옵션 --sheme이 없습니다."
    assert recognized("whatever else") == "whatever else" and not isinstance(recognized("whatever else"), Message)
    for template in SENTENCES:
        filled = template.format(**{name: f"N{name}" for name, *_ in extraction.fields(template)})
        assert recognized(filled).template == template


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
    {"format": "whet.plan", "version": 1},
    {**PLAN, "schemes": []},
    {**PLAN, "groups": {"all": {"addresses": []}}},
    {**PLAN, "schemes": {"a": 4}},
    {**PLAN, "schemes": {4: "keep", 5: "keep"}},
    {**PLAN, "budget": {"kind": "speed"}},
    {**PLAN, "budget": {"bytes": -1}},
    {**PLAN, "gap": {"bound": float("inf"), "relative": 0}},
    {**PLAN, "text": "corpus"},
    {**PLAN, "model": "tiny"},
    {**PLAN, "notes": [3]},
    {**PLAN, "notes": "a note"},
]


@pytest.mark.parametrize(
    ("read", "value"), [*((recipe_arguments, v) for v in RECIPES), *((read_plan, v) for v in PLANS)]
)
def test_what_is_wrong_with_a_document_is_told_in_korean(read, value) -> None:
    with pytest.raises(UsageError) as error:
        read(value)
    assert is_korean(korean(error.value.message)), f"{error.value} -> {korean(error.value.message)}"
