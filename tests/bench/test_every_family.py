"""The documents' table of decoders is of the run that `bench/every_family.py` makes, and of today's list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import every_family
import tiny_families
from tiny_families import DECODERS
from whet.anatomy import FAMILIES
from whet.steps.original import open_original
from whet.targets import TARGETS, find_target

TEXT = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
PART = TEXT[TEXT.index("<!-- every -->") : TEXT.index("<!-- /every -->")]
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PART.splitlines()
    if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == len(every_family.HEAD)
    and cells[0].startswith("`")
    and cells[0].strip("`") in DECODERS
}


def test_every_decoder_of_the_list_has_a_row_and_a_way_to_be_loaded():
    assert list(ROWS) == list(DECODERS) and len(DECODERS) >= 60
    assert "fails" not in PART
    for name, (_, rounded, gptq, nearest, _, gguf, loads) in ROWS.items():
        assert int(rounded.rstrip("%")) > 0, name
        assert gptq == "–" or float(gptq) < float(nearest), name
        assert re.fullmatch(r"(stock transformers|the modelling file)(, \S+ off)?", loads), name
        assert gguf == "yes" or FAMILIES.get(name) is None or name not in (TARGETS["llama.cpp"].families or ()), name


def test_rows_are_told_from_what_was_found():
    for name, (parts, *_) in ROWS.items():
        assert (parts == "row") == (name in FAMILIES), name
        assert parts in ("row", "found") or parts.startswith("not found: "), name


@pytest.mark.parametrize("name", ["glm4_moe", "nemotron", "gemma3n_text"])
def test_what_is_told_of_a_family_is_what_opening_it_says(tmp_path, name):
    """A few, which differ: run the bench again with --write where one does."""
    about = open_original(tiny_families.make(tmp_path / "m", name), find_target("whet"))
    assert [every_family.parts(about), every_family.rounded(about)] == ROWS[name][:2]


@pytest.mark.long
@pytest.mark.parametrize("name", DECODERS)
def test_every_family_is_told_as_opening_it_says(tmp_path, name):
    about = open_original(tiny_families.make(tmp_path / "m", name), find_target("whet"))
    assert [every_family.parts(about), every_family.rounded(about)] == ROWS[name][:2]
