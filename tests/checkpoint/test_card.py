"""The front matter of a card: bounded, whatever stands there, and what is not plain YAML is text."""

from __future__ import annotations

import time
import tracemalloc

import pytest
import yaml

import models
from whet.checkpoint import read_card
from whet.errors import MachineError, UsageError
from whet.recipe.compress import compress
from whet.recipe.schema import read_recipe

MERGES = "\n".join(["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 25))])
LISTS = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))])
HOSTILE = {
    "a date that is none": "date: 2024-02-30",
    "merges": MERGES,
    "lists of lists": LISTS + "\nlanguage: *a11",
    "depth": f"x: {'[' * 20_000}",
    "a number": f"x: {'9' * 20_000}",
    "a tag": "x: !!python/object/apply:os.system [ls]",
    "no YAML": "x: : :\n\t- y",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_else_stands_there_the_licence_is_read_at_once(tmp_path, name):
    card = tmp_path / "README.md"
    card.write_text(f"---\nlicense: mit\ntags:\n- one\n- 'two'\n{HOSTILE[name]}\n---\n# Model\n")
    tracemalloc.start()
    started = time.monotonic()
    found = read_card(card)
    assert {"license": "mit", "tags": ["one", "two"]}.items() <= found.items()
    assert time.monotonic() - started < 5 and tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    yaml.safe_dump(found)


def test_dates_stay_what_they_are_and_the_rest_as_yaml_has_it(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("---\r\nlanguage: 2024-05-01\r\ntags: [a, b]\r\nlicense: null\r\nother: x\r\n---\r\n")
    assert read_card(card) == {"license": None, "language": "2024-05-01", "tags": ["a", "b"]}
    endless = "---\nx: " + "y" * 10**6 + "\n---\n"
    for text in ("", "# no front matter", "---\nlicense: mit\n", "---\n- a\n---\n", endless):
        card.write_text(text)
        assert read_card(card) == {}
    assert read_card(tmp_path / "none.md") == {}


def test_a_card_of_another_date_hinders_nothing(tmp_path):
    model = models.make(tmp_path / "model")
    (model / "README.md").write_text("---\nlicense: mit\ndate: 2024-02-30\n---\n")
    compress(model, tmp_path / "out", scheme="int8s", solver="nearest")
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text()


def test_a_card_that_cannot_be_read_is_told_before_the_work(tmp_path, monkeypatch):
    model = models.make(tmp_path / "model")
    opened = type(model).open

    def refused(path, *args, **more):
        if path.name == "README.md":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **more)

    monkeypatch.setattr(type(model), "open", refused)
    with pytest.raises(MachineError, match=r"README\.md cannot be read"):
        compress(model, tmp_path / "out", scheme="int8s", solver="nearest", dry_run=True)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("a tag", "no YAML")])
def test_a_recipe_is_read_in_bounds_too(tmp_path, name):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"version: 1\n{HOSTILE[name]}\nsteps: []\n")
    started = time.monotonic()
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        read_recipe(recipe)
    recipe.write_text("#" * (1 << 21))
    with pytest.raises(UsageError, match="no recipe"):
        read_recipe(recipe)
    assert time.monotonic() - started < 5
