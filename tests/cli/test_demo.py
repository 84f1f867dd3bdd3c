"""The law: what the demo writes loads through its modelling file, and its page and picture show its figures.

With fewer windows and questions than `whet demo` takes.
"""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from whet import starter
from whet.checkpoint import load_model
from whet.cli import demo
from whet.cli.tables import Sheet
from whet.starter import SKILLS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SAMPLES": 16,
        "DOCUMENTS": 20,
        "PER_SKILL": 2,
        "STORY_TOKENS": 4,
        "SCORED": 2,
        "WINDOW": 128,
    }.items():
        monkeypatch.setattr(demo, name, value)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model in the place of the embedded one, with its tokenizer and so with its text and questions."""
    folder = models.make(tmp_path / "tiny", vocab_size=4096, max_position_embeddings=1024, dtype=torch.bfloat16)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(starter.path() / name, folder / name)
    monkeypatch.setattr(starter, "path", lambda: folder)


@pytest.mark.usefixtures("small", "no_process")
@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("tiny", ("--scheme", "int3z-g32", "--embed", "int3z-g32")),
        pytest.param("embedded", (), marks=pytest.mark.long),
    ],
)
def test_demo_writes_what_it_says(
    request: pytest.FixtureRequest,
    command: Callable,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: str,
    asked: tuple[str, ...],
) -> None:
    """A tiny model with one scheme, and the embedded one with the budget that is there when nothing is asked for."""
    if model == "tiny":
        request.getfixturevalue("tiny")
    out = tmp_path / "demo"
    ended = command("demo", out, *asked, "--json")
    assert ended.code in (0, 4, 5), ended.err
    told = json.loads(ended.out)
    assert ended.code == {"pass": 0, "inconclusive": 0, "fail": 5}[told["verdict"]], ended.err
    assert json.loads((out / "compare.json").read_text(encoding="utf-8")) == told
    sizes = told["size"]
    assert sizes["lighter"]["weights"] <= 0.30 * sizes["original"]["weights"]
    assert [entry["skill"] for entry in told["skills"]] == list(SKILLS)

    page = (out / "README.md").read_text(encoding="utf-8")
    assert all(f"| {skill} |" in page for skill in SKILLS) and "이야기:" in page
    drawn = [text.text for text in ET.parse(out / "skills.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert set(SKILLS) <= set(drawn)

    stock = AutoModelForCausalLM.from_pretrained(out / "lighter", local_files_only=True, trust_remote_code=True).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(stock(ids).logits, load_model(out / "lighter")(ids).logits)

    monkeypatch.setenv("WHET_LANG", "ko")
    korean = demo.page(told["compress"], told, Sheet("", ["능력"]), [])
    assert "능력별" in korean and "판정" in korean and "원본" in korean
    assert "원본" in demo.picture(told)
    # A finished demo makes room for the next one.
    demo.clear(out / "lighter")
    assert not (out / "lighter").exists()


@pytest.mark.usefixtures("small")
def test_demo_leaves_a_folder_that_is_not_its_own(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "lighter").mkdir()
    (tmp_path / "lighter" / "mine.txt").write_text("mine")
    ended = command("demo", tmp_path)
    assert ended.code == 2 and ended.out == "" and len(ended.err.splitlines()) == 1
    assert (tmp_path / "lighter" / "mine.txt").read_text() == "mine"


@pytest.mark.usefixtures("small")
def test_dry_run_writes_nothing(command: Callable, tmp_path: Path) -> None:
    ended = command("demo", tmp_path / "demo", "--dry-run")
    assert ended.code == 0 and "memory" in ended.out and not (tmp_path / "demo").exists(), ended.err
