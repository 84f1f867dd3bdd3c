"""The documents' tables of families and targets are the ones the code makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from families_table import families_table, support, support_table, targets_table
from whet.anatomy import FAMILIES
from whet.targets import TARGETS

DOCUMENTS = Path(__file__).parents[2] / "docs"
TABLES = {
    "families": ("families.md", families_table),
    "support": ("families.md", support_table),
    "targets": ("artifact.md", targets_table),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_in_the_documents_are_current(name):
    file, table = TABLES[name]
    text = (DOCUMENTS / file).read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    written = text[text.index(start) + len(start) : text.index(end)]
    assert written == table(), f"docs/{file} is behind the code: put in what {table.__name__}() says"


def test_every_family_has_a_row():
    rows = families_table().splitlines()[2:]
    assert [row.split("|")[2].strip(" `") for row in rows] == list(FAMILIES)


def test_every_target_has_a_column_and_a_row():
    assert [name.strip(" `") for name in support_table().splitlines()[0].split("|")[2:-1]] == list(TARGETS)
    assert [row.split("|")[1].strip(" `") for row in targets_table().splitlines()[2:]] == list(TARGETS)


def test_no_cell_says_more_than_its_target_does():
    """A family that a target does not load, or whose file whet does not write, is unsupported there."""
    for target in TARGETS.values():
        cells = {name: support(target, name) for name in FAMILIES}
        assert set(cells.values()) <= {target.checked, "unsupported"}
        if target.families is not None:
            checked = {name for name, cell in cells.items() if cell == target.checked}
            assert checked == set(target.families) & set(FAMILIES)
