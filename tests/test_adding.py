"""docs/adding.md is run as it stands: a toy grid, a toy solver and a toy step, three places each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import models
from whet.grids import SMALL_FLOATS
from whet.quantize import ROUNDINGS, SOLVERS
from whet.steps.crafts import CRAFTS
from whet.steps.options import STEPS

PAGE = Path(__file__).parents[1] / "docs" / "adding.md"


@pytest.fixture
def tables():
    """The tables as they were, whatever the page adds."""
    kept = [(table, dict(table)) for table in (SMALL_FLOATS, ROUNDINGS, SOLVERS, CRAFTS, STEPS)]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)


def test_the_page_runs(tables, tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    assert [title for title in re.findall(r"^## (.*)$", text, re.MULTILINE)] == ["A grid", "A solver", "A step"]
    names = {"__name__": "adding", "MODEL": models.make(tmp_path / "model"), "OUT": tmp_path, "TEXT": models.documents(60)}
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 9
    for number, block in enumerate(blocks):
        exec(compile(block, f"adding.md, block {number}", "exec", dont_inherit=True), names)
