"""The law: what `--help` says is said in Korean too, all of it, and in English as it is written."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import typer
from typer import rich_utils

from whet import cli
from whet.cli.help import texts
from whet.messages import catalogue
from wording import each

VERBS = ["", *typer.main.get_command(cli.app).commands]  # type: ignore[attr-defined]
ENGLISH = re.compile(r"(?:\b[A-Za-z]{2,}\b[ ,;:.]+){4}")  # four English words in a row


def test_every_help_string_has_a_translation() -> None:
    known = catalogue("ko")
    missing = [text for text in texts(cli.app) if not re.search("[가-힣]", known.get(text, ""))]
    assert not missing and len(known) > len(texts(cli.app)) > 90


@each("verb", VERBS)
def test_help_in_korean_has_no_english_sentence(command: Callable, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("WHET_LANG", "ko")
    monkeypatch.setenv("COLUMNS", "300")  # no sentence is cut by the end of a line
    ended = command(*filter(None, [verb]), "--help")
    assert ended.code == 0 and ended.err == ""
    for line in ended.out.splitlines():
        said = re.sub(r"예: whet.*|`[^`]*`|<[^>]*>|--\S+", "", line)
        names = re.sub(r"(\.?\w[\w.-]*, )+\.?\w[\w.-]*", "", said)  # lists of names: w8, w4, balanced, smallest
        assert not ENGLISH.search(names), line
    for shown in ("사용법: whet", "옵션", "이 도움말을 출력하고 끝냅니다", "예: whet"):
        assert shown in ended.out, verb


@each("width", [72, 80, 101, 140])
def test_no_letter_is_lost_where_a_line_ends(command: Callable, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("WHET_LANG", "ko")
    monkeypatch.setenv("COLUMNS", str(width))
    for verb in filter(None, VERBS):
        assert "…" not in command(verb, "--help").out


def test_help_in_english_is_what_typer_makes_of_it(command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = rich_utils.OPTIONS_PANEL_TITLE, rich_utils.DEFAULT_STRING
    monkeypatch.setenv("WHET_LANG", "ko")
    command("compress", "--help")
    assert frame == (rich_utils.OPTIONS_PANEL_TITLE, rich_utils.DEFAULT_STRING)  # Korean left nothing behind
    monkeypatch.setenv("WHET_LANG", "en")
    said = command("compress", "--help").out
    assert "Usage: whet compress" in said and not re.search("[가-힣]", said)


def test_no_arguments_is_korean_help_too(command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHET_LANG", "ko")
    ended = command()
    assert ended.code == 2 and "사용법: whet" in ended.out + ended.err
