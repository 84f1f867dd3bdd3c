"""Rows of solvers and transforms: names and facts agree, and a new row is all that a new one needs beside its file."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

import models
from covering import WHOLE
from whet.errors import UsageError
from whet.quantize import (
    METHODS,
    ROUNDINGS,
    SOLVERS,
    TRANSFORMS,
    WORDS,
    Effort,
    Rounding,
    Transform,
    find_solver,
    find_transform,
    nearest,
)
from whet.quantize.readers import Found
from whet.recipe.compress import compress
from whet.steps import options

WINDOWS = torch.randint(2, 264, (6, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("rows") / "model")


def test_every_name_is_a_method_or_a_word_for_one():
    assert {*METHODS} | {*WORDS} == {*SOLVERS} and not {*METHODS} & {*WORDS}
    assert {word: effort.name for word, effort in WORDS.items()} == {"fast": "nearest", "good": "gptq", "best": "tuned"}
    assert all(find_solver(name).name == name for name in METHODS)
    assert [name for name, effort in SOLVERS.items() if effort.writes] == ["best"]
    with pytest.raises(UsageError, match=r"'gtpq' is not known\. Did you mean gptq\?.*say fast for nearest, good for"):
        find_solver("gtpq")


def test_what_needs_text_and_what_is_left_without_training():
    assert [name for name in METHODS if not SOLVERS[name].text] == ["nearest"]
    assert {name: SOLVERS[name].alone.name for name in METHODS} == {
        **{"nearest": "nearest", "gptq": "gptq", "gptaq": "gptaq"},
        **{"block": "gptq", "tuned": "gptq"},
    }
    # what comes after rounding needs text too, whatever rounds
    for axis in ("correct", "block", "tune"):
        assert Effort("nearest", **{axis: True}).text and not Effort("nearest").text
    assert {name for name, row in TRANSFORMS.items() if not row.text} == {"rotate", "quarot"}
    assert {name for name, row in TRANSFORMS.items() if row.stream} == {"quarot", "spinquant"}
    assert not any(dataclasses.astuple(find_transform(None)))
    with pytest.raises(UsageError, match=r"'smoth' is not known\. Did you mean smooth\?"):
        find_transform("smoth")


def test_the_help_names_every_row():
    """`whet.steps.options` spells them out, so that help needs no torch."""
    assert options.TRANSFORMS.split(", ") == [*TRANSFORMS]
    named = options.Solver.model_fields["solver"].description
    assert {*re.findall(r"[a-z]+", named.replace("(needs no text)", ""))} - {"or", "by", "name"} == {*SOLVERS}


def test_a_new_rounding_is_its_row(original, tmp_path, monkeypatch):
    """One that needs no text, and one that looks at the moments: each with training after it and in `auto`."""
    seen = []

    def crude(w, h, grid, mask=None):
        seen.append(h is None)
        return nearest(w * 1.001, None, grid, mask)

    monkeypatch.setattr("whet.train.steps._EPOCHS", 5)
    monkeypatch.setattr("whet.steps.rates._rounding_seconds", lambda *_: 0.0)  # estimates try roundings too
    monkeypatch.setitem(ROUNDINGS, "crude", Rounding(crude, text=False, work=0.0))
    monkeypatch.setitem(ROUNDINGS, "keen", Rounding(lambda *given: crude(*given), text=True, work=1.0))
    monkeypatch.setitem(SOLVERS, "crude", Effort("crude"))
    monkeypatch.setitem(SOLVERS, "keen", Effort("keen"))
    monkeypatch.setitem(SOLVERS, "crude tuned", Effort("crude", block=True, tune=True))
    result = compress(original, tmp_path / "a", scheme="int4-g32", solver="crude")
    assert result["solver"] == "crude" and all(seen) and result["text"] is None
    seen.clear()
    for solver, transform in (("keen", None), *([("crude tuned", None)] if WHOLE else []), ("crude tuned", "auto")):
        out = tmp_path / f"{solver} {transform}"
        settings = {"text": WINDOWS, "eval_text": WINDOWS.flip(1), "transform": transform}
        result = compress(original, out, scheme="int3-g32", solver=solver, **settings)
        assert result["solver"] == solver and not any(seen) and len(seen) > 0
        if transform:  # without training it is the rounding itself
            assert any("rounded throughout with crude," in note for note in result["notes"])
    without = compress(original, tmp_path / "b", scheme="int4-g32", solver="keen", samples=2, window=16)
    assert without["text"]["source"] == "written by the model itself"


def test_a_new_transform_that_finds_factors_is_its_row(original, tmp_path, monkeypatch):
    tried = []

    def halves(readers, settle):
        tried.append(len(readers))
        return Found(settle(torch.where(torch.arange(readers[0].w.shape[1]) % 2 == 0, 0.5, 2.0)))

    monkeypatch.setitem(TRANSFORMS, "halves", Transform(halves))
    settings = {"scheme": "int3s-g32", "text": WINDOWS, "eval_text": WINDOWS.flip(1)}
    result = compress(original, tmp_path / "a", transform="halves", **settings)
    assert result["transform"] == "halves" and tried
    assert {told["transform"] for told in result["transforms"].values()} == {"halves"}
    tried.clear()
    result = compress(original, tmp_path / "b", transform="auto", **settings)
    assert tried and {told["transform"] for told in result["transforms"].values()} <= {"none", "rotate", *TRANSFORMS}
