"""Skills and languages that count as much as all other text."""

from __future__ import annotations

import pytest
import torch

import models
from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from whet.recipe.prune import prune
from whet.steps.material import Material
from whet.steps.protect import protected

WINDOWS = [torch.arange(2, 34) + number for number in range(20)]
ITEMS = [
    *({"skill": "sums_en", "prompt": f"{n} and {n} is", "answer": str(2 * n), "group": str(n)} for n in range(30)),
    *({"skill": "words", "prompt": f"안녕 {n}", "choices": [" 하나", " 둘"], "label": n % 2} for n in range(10)),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("m") / "m", "llama", blocks=2)


def made(original, *names):
    return protected(Material(WINDOWS[:15], WINDOWS[15:], {"text": 1}), names, ITEMS, Checkpoint(original), 0)


def test_what_is_protected_has_as_many_tokens_as_the_text_and_comes_in_turns(original):
    for names in (["sums"], ["sums", "korean"]):
        found = made(original, *names)
        for before, after in ((WINDOWS[:15], found.solve), (WINDOWS[15:], found.verify)):
            assert sum(map(len, after)) == pytest.approx(2 * sum(map(len, before)), abs=32 * len(names))
            first = [any(torch.equal(one, window) for window in before) for one in after[:4]]
            assert True in first and False in first
            assert all(any(torch.equal(one, window) for one in after) for window in before)
        assert list(found.about["protected"]) == names and found.about["text"] == 1
    assert all(torch.equal(a, b) for a, b in zip(found.solve, made(original, *names).solve, strict=True))


def test_no_question_is_solved_on_and_decided_by(original):
    tokenizer = models.tokenizer()
    found = made(original, "sums")
    sides = [
        {n for n in range(10, 30) if any(f"{n} and {n} is {2 * n}" in tokenizer.decode(one) for one in windows)}
        for windows in (found.solve, found.verify)
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_prune_takes_it_and_refuses_what_is_not_there(tmp_path, original):
    text = {"text": models.documents(40, 20), "samples": 8, "window": 20, "remove": 0.25, "units": "channels"}
    result = prune(original, tmp_path / "out", protect="sums", skills=ITEMS, **text)
    assert result["text"]["protected"].keys() == {"sums"}
    for options, word in (
        ({"protect": "sum", "skills": ITEMS}, "Did you mean sums"),
        ({"protect": ","}, "protect is empty"),
        ({"protect": "korean"}, "nothing of it"),
        ({"skills": ITEMS}, "what protect names"),
        ({"protect": "sums", "text": None, "skills": ITEMS}, "none to calibrate on"),
    ):
        with pytest.raises(UsageError, match=word):
            prune(original, tmp_path / "no", **{**text, **options})
        assert not (tmp_path / "no").exists()
