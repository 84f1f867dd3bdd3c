"""The laws: results on stdout and the rest on stderr; strict JSON; on a pipe plain lines with the time left."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from whet.cli.console import Console
from whet.cli.tables import Sheet
from whet.events import Part, Stage, Way


def test_json_mode_prints_one_strict_document(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(as_json=True) as console:
        console.show("for people")
        console.on_event({"event": "note", "message": "for people"})
        Stage(console.on_event, "blocks", of=2).step()
        console.result({"nan": math.nan, "inf": -math.inf, "path": Path("a/b"), "나": [1, (2.5, True)]})
    out, err = capsys.readouterr()
    assert json.loads(out, parse_constant=pytest.fail) == {
        "nan": None,
        "inf": None,
        "path": "a/b",
        "나": [1, [2.5, True]],
    }
    assert "for people" in err


def test_without_json_the_document_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.show("for people")
        console.result({"a": 1})
    assert capsys.readouterr().out == "for people\n"


def test_progress_off_a_terminal_is_plain_and_sparse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHET_LANG", "en")
    with Console() as console:
        stage = Stage(console.on_event, "blocks", of=500)
        for _ in range(500):
            stage.step()
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 2  # the first and the last; ten seconds did not pass between
    assert lines[0].startswith("0 %, blocks 1/500, ") and "left" in lines[0]
    assert lines[1] == "100 %, blocks 500/500"
    assert "\x1b" not in err


def test_lines_say_the_whole_and_what_is_going_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHET_LANG", "ko")
    with Console() as console:
        way = Way(console.on_event, [Part("read", 1), Part("compress", 3)])
        Stage(way, "read", of=1).step()
        Stage(way, "compress", of=1).step(unit="block 12")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("25 %, 원본 읽는 중 1/1, ") and lines[0].endswith("남음")
    assert lines[1] == "100 %, 압축하는 중 1/1 (블록 12)"


def test_on_a_terminal_there_is_one_bar_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHET_LANG", "en")
    screen = io.StringIO()
    with Console() as console:
        console.err = RichConsole(file=screen, force_terminal=True, width=100)
        way = Way(console.on_event, [Part("read", 1), Part("compress", 1), Part("verify", 2)])
        for name in ("read", "compress"):
            Stage(way, name, of=1).step()
        console._live.refresh()
        (task,) = console._live.tasks
        assert task.percentage == 50
        assert "50 % compressing 1/1" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())


def test_text_that_looks_like_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        console.show("[bold]not markup[/bold] [1]")
        console.on_event({"event": "warning", "message": "[red] is a word"})
    out, err = capsys.readouterr()
    assert out == "[bold]not markup[/bold] [1]\n" and "[red] is a word" in err


def test_interrupted_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHET_LANG", "en")
    (tmp_path / ".whet").mkdir()
    with pytest.raises(KeyboardInterrupt), Console(resume=tmp_path):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == f"Stopped. Go on with: whet resume {tmp_path}\n"
    with pytest.raises(KeyboardInterrupt), Console(resume=tmp_path / "never begun"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "Stopped.\n"
    with pytest.raises(KeyboardInterrupt), Console(resume=tmp_path, again="whet demo"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "Stopped. Go on with: whet demo\n"


HOSTILE = "가\x1b]0;owned\x07나\r\x9b31m\u202e다\x7f"
SHOWN = "가\\u001b]0;owned\\u0007나\\u000d\\u009b31m\\u202e다\\u007f"


def test_control_characters_of_what_is_printed_are_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with Console() as console:
        console.show(HOSTILE, Sheet(HOSTILE, ["", HOSTILE], [[HOSTILE, "1"]]).rich())
        console.on_event({"event": "note", "message": HOSTILE})
    out, err = capsys.readouterr()
    assert out.count(SHOWN) == 4 and err.count(SHOWN) == 1
    with Console(as_json=True) as console:
        console.result({HOSTILE: [HOSTILE, "a\n\tb"]})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {HOSTILE: [HOSTILE, "a\n\tb"]}
    assert not set(out + err + printed) & set("\x1b\x07\r\x9b\u202e\x7f")


@pytest.mark.parametrize("arguments", [["resume", f"nowhere{HOSTILE}"], ["export", f"x\x1b{HOSTILE}"]])
def test_control_characters_of_errors_are_escaped(command: Callable, arguments: list[str]) -> None:
    ended = command(*arguments, "--debug")
    assert ended.code == 2 and "가\\u001b]0" in ended.err and not set(ended.err) & set("\x1b\x07\r\x9b\u202e\x7f")
