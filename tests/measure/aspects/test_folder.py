"""What comes with the weights: every loss is listed, and what a cut or an export changes is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models
import whet
from whet import starter
from whet.measure.compare import compare

STARTER = Path(starter.__file__).parent / "whet-starter"
TEXT = starter.held_out(seed=0, count=60)


def rewritten(file: Path, change: Callable[[Any], Any]) -> None:
    """A JSON file with what `change` returns of it, or did to it."""
    held = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(change(held) or held, ensure_ascii=False), encoding="utf-8")


def halved(tokenizer: dict[str, Any]) -> None:
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = merges[: len(merges) // 2]


def lowered(tokenizer: dict[str, Any]) -> None:
    first = tokenizer["normalizer"]
    tokenizer["normalizer"] = {
        "type": "Sequence",
        "normalizers": [*([first] if first else []), {"type": "Lowercase"}],
    }


def swapped(tokenizer: dict[str, Any]) -> None:
    tokenizer["bos_token"], tokenizer["eos_token"] = tokenizer["eos_token"], tokenizer["bos_token"]


LOST: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "merges halved": ("tokenizer.json", halved, "tokens of the same text"),
    "lower case": ("tokenizer.json", lowered, "tokens of the same text"),
    "special tokens swapped": ("tokenizer_config.json", swapped, "tokenizer: bos_token"),
    "end token": ("generation_config.json", lambda held: held | {"eos_token_id": 7}, "tokens that end a text"),
    "sampling": ("generation_config.json", lambda held: held | {"do_sample": True}, "do_sample"),
    "context cut": ("config.json", lambda held: held | {"max_position_embeddings": 128}, "context length"),
    "rope": (
        "config.json",
        lambda held: held | {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        "rotary positions",
    ),
}


def measured(original: Path, lighter: Path, text: list[str] = TEXT) -> dict[str, Any]:
    result = compare(original, lighter, text=text, windows=4, window=64, speed=False, measure=["folder"])
    (judged,) = [entry for entry in result["judgements"] if entry["limit"] == "folder.differences"]
    assert judged["verdict"] == ("fail" if result["aspects"]["folder"]["differences"] else "pass")
    assert result["verdict"] == "fail" or judged["verdict"] == "pass"
    told: dict[str, Any] = result["aspects"]["folder"]
    return told


def names(told: dict[str, Any]) -> list[str]:
    return [str(each["what"]) for each in told["differences"]]


@pytest.mark.parametrize("kind", LOST)
def test_what_is_lost_is_listed(kind: str, tmp_path: Path) -> None:
    file, change, named = LOST[kind]
    lighter = shutil.copytree(STARTER, tmp_path / "lighter")
    rewritten(lighter / file, change)
    told = measured(STARTER, lighter)
    assert any(named in name for name in names(told)), told
    assert told["readings"][0]["value"] == len(told["differences"]) == len(told["notes"])


def test_a_chat_template_is_compared_by_what_it_writes(tmp_path: Path) -> None:
    original, lighter = (shutil.copytree(STARTER, tmp_path / name) for name in ("original", "lighter"))
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    (original / "chat_template.jinja").write_text(template)
    assert names(measured(original, lighter)) == ["chat template"]
    (lighter / "chat_template.jinja").write_text("{# the same #}" + template)
    assert names(measured(original, lighter)) == []
    (lighter / "chat_template.jinja").write_text(template.replace("<a>", ""))
    assert names(measured(original, lighter)) == ["chat template"]


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt_neox", "gemma2"])
def test_what_a_compression_writes_is_no_difference(family: str, tmp_path: Path) -> None:
    original = models.make(tmp_path / "original", family)
    whet.compress(original, tmp_path / "out", scheme="W8A16", solver="nearest")
    assert names(measured(original, tmp_path / "out", models.documents())) == []


def test_a_cut_vocabulary_is_no_difference(tmp_path: Path) -> None:
    whet.prune(STARTER, tmp_path / "out", vocab=starter.held_out(seed=1, count=60))
    assert names(measured(STARTER, tmp_path / "out")) == []


def test_an_export_is_no_difference_and_its_end_tokens_are_looked_at(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    whet.export(STARTER, out=tmp_path / "out.gguf")
    assert names(measured(STARTER, tmp_path / "out.gguf")) == []
    original = shutil.copytree(STARTER, tmp_path / "original")
    rewritten(original / "generation_config.json", lambda held: held | {"eos_token_id": [1, 9]})
    assert names(measured(original, tmp_path / "out.gguf")) == ["tokens that end a text"]
