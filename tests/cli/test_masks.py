"""`whet masks`: what is typed is what the library is asked for, and what is shown is what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models
import whet
from wording import each

pytestmark = pytest.mark.usefixtures("anywhere")

SIZES = {"total": 100, "weights": 90, "linears": 50, "embedding": 40, "head": 0, "other": 0, "tokenizer": 10}
LINES = {
    "a": {"shape": [2, 4], "mask": {"share": 0.5}},
    "b": {"shape": [6, 4], "mask": {"share": 0.25}},
}
RESULT: dict[str, Any] = {
    "out": "sparse",
    "sizes": {"original": SIZES, "lighter": SIZES},
    "container": "dense",
    "loads_in": "transformers",
    "linears": LINES,
    "kl": 0.0123,
    "top1": 0.95,
    "notes": [],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What `whet.masks` was called with, in the place of doing it."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def fake(*args: Any, **kwargs: Any) -> dict[str, Any]:
        calls.append((args, kwargs))
        return RESULT

    monkeypatch.setitem(vars(whet), "masks", fake)
    return calls


@each(
    "typed, key, value",
    [
        (("--remove", "50%"), "remove", "50%"),
        (("--pattern", "2:4"), "pattern", "2:4"),
        (("--importance", "wanda"), "importance", "wanda"),
        (("--within", "row"), "within", "row"),
        (("--no-update",), "update", False),
        (("--seed", "3"), "seed", 3),
        ((), "update", True),
        ((), "importance", "sparsegpt"),
        ((), "pattern", None),
    ],
)
def test_options_become_arguments(
    command: Callable, asked: list, tmp_path: Path, typed: tuple, key: str, value: Any
) -> None:
    assert command("masks", tmp_path, "out", *typed).code == 0
    args, kwargs = asked[-1]
    assert args == (tmp_path, Path("out")) and kwargs[key] == value


@each("language, said", [("en", "31.2 % of the weights of 2 linears"), ("ko", "선형층 2개")])
def test_what_was_taken_is_shown(
    command: Callable, asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, said: str
) -> None:
    monkeypatch.setenv("WHET_LANG", language)
    ended = command("masks", tmp_path, "out")
    assert said in ended.out and "compressed-tensors" not in ended.out


def test_a_model_becomes_sparse_and_tells_so(command: Callable, tmp_path: Path) -> None:
    model = models.make(tmp_path / "model", hidden_size=32, intermediate_size=32)
    told = ("masks", model, tmp_path / "out", "--pattern", "2:4", "--importance", "magnitude", "--no-update", "--json")
    result = json.loads(command(*told).out)
    assert result["sparsity"]["pattern"] == "2:4" and (tmp_path / "out" / "whet.json").is_file()
    ended = command("masks", model, tmp_path / "other", "--pattern", "3:5")
    assert ended.code == 2 and "3:5" in ended.err and len(ended.err.splitlines()) == 1
