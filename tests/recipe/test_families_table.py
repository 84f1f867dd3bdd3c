"""The documents' table of families is the one the code makes."""

from __future__ import annotations

from pathlib import Path

from whet.anatomy import FAMILIES
from whet.recipe.families import families_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "families.md"
START, END = "<!-- families -->\n", "<!-- /families -->"


def test_the_table_in_the_documents_is_current():
    text = DOCUMENT.read_text(encoding="utf-8")
    written = text[text.index(START) + len(START) : text.index(END)]
    assert written == families_table(), "docs/families.md is behind the code: put in what families_table() says"


def test_every_family_has_a_row():
    rows = families_table().splitlines()[2:]
    assert [row.split("|")[2].strip(" `") for row in rows] == list(FAMILIES)
