"""Recipes: what a file or a preset says is what is asked for, people's own words go over it, faults are named."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
import yaml

import models
from whet.errors import UsageError
from whet.recipe.compress import compress
from whet.recipe.resume import resume
from whet.recipe.schema import PRESETS, recipe_arguments, recipe_schema
from whet.steps.decide import decide
from whet.steps.options import Quantize, recipe_text
from whet.steps.quantize import recipe_of
from whet.steps.verbs import Compress
from whet.targets import TARGETS
from wording import each

WINDOWS = torch.randint(0, 264, (3, 16), generator=torch.Generator().manual_seed(0))


def recipe(**quantize):
    return {"version": 1, "steps": [{"quantize": quantize}]}


def refused(what, value, **given):
    """The message about a recipe that must be refused: one paragraph that names every part of `what`."""
    with pytest.raises(UsageError) as raised:
        recipe_arguments(value, given)
    message = str(raised.value)
    assert all(part in message for part in what), message
    assert "\n" not in message and 30 < len(message) < 700
    return message


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_every_key_is_an_argument_of_compress():
    known = inspect.signature(compress).parameters
    assert set(Quantize.model_fields) - {"preset"} <= set(known)
    for name, field in Quantize.model_fields.items():
        if name in known and known[name].default is not None:
            assert field.default == known[name].default, name


def test_a_file_says_what_compress_is_called_with(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "version: 1\nmodel: 나의/model\nout: lighter\nseed: 3\nsteps:\n"
        "  - quantize: {scheme: int4-g32, embed: int8s, for: whet, eval: e.txt, chat: true, samples: 4}\n",
        encoding="utf-8",
    )
    assert recipe_arguments(tmp_path / "r.yaml") == {
        "model": "나의/model",
        "out": "lighter",
        "seed": 3,
        "scheme": "int4-g32",
        "embed": "int8s",
        "target": "whet",
        "eval_text": "e.txt",
        "chat": True,
        "samples": 4,
    }


@each(
    "said,given,expected",
    [
        ({"scheme": "int8s", "embed": "int8s"}, {"scheme": "int4s"}, {"scheme": "int4s", "embed": "int8s"}),
        ({"scheme": "int8s", "embed": "int8s"}, {"fit": "25%"}, {"fit": "25%"}),
        ({"scheme": "int8s", "embed": "int8s"}, {"plan": "p.json"}, {"plan": "p.json"}),
        ({"quality": 0.98, "skills": "s.jsonl"}, {"bits": 3.5}, {"bits": 3.5, "skills": "s.jsonl"}),
        ({"quality": 0.98, "skills": "s.jsonl"}, {"scheme": "int8s"}, {"scheme": "int8s"}),
        ({"fit": "1MB", "window": 64}, {"window": 32}, {"fit": "1MB", "window": 32}),
        ({"preset": "w8", "text": "t"}, {"embed": "int4s"}, {"scheme": "int8s", "embed": "int4s", "text": "t"}),
        ({"preset": "w8", "bits": 4.0}, {}, {"bits": 4.0}),
        ({"preset": "w8", "embed": None}, {}, {"scheme": "int8s", "embed": None}),
        ({"preset": "balanced", "text": "t"}, {"seed": 7}, {"quality": 0.98, "text": "t", "seed": 7}),
    ],
)
def test_what_is_given_goes_over_what_is_said(said, given, expected):
    assert recipe_arguments(recipe(**said), given) == {"seed": 0, **expected}


@each("name", PRESETS)
def test_every_preset_asks_for_one_thing_and_is_explained(name):
    arguments = recipe_arguments(name)
    assert len({"scheme", "quality"} & set(arguments)) == 1 and not {"model", "out"} & set(arguments)


@pytest.mark.parametrize("target", TARGETS)
def test_w8_takes_the_tables_where_the_target_holds_them(target):
    events = []
    arguments = recipe_arguments("w8", {"target": target}, events.append)
    held = TARGETS[target].embedding
    assert arguments["embed"] == ("int8s" if held else None)
    assert [event["event"] for event in events] == ([] if held else ["note"])
    # what somebody typed is never dropped
    assert recipe_arguments("w8", {"target": target, "embed": "int8s"})["embed"] == "int8s"


# -- faults -----------------------------------------------------------------------------------------------------------

FAULTS = {
    "a key": (recipe(schem="int8s"), ["steps[0].quantize.schem is not known", "Did you mean scheme?"]),
    "a key of Python": (recipe(target="whet"), ["steps[0].quantize.target is not known", "for"]),
    "a key on top": ({**recipe(), "sed": 1}, ["the key sed is not known", "Did you mean seed?"]),
    "a step": ({"version": 1, "steps": [{"quantise": {}}]}, ["steps[0].quantise", "Did you mean quantize?"]),
    "no steps": ({"version": 1, "steps": []}, ["steps", "at least 1"]),
    "two steps": ({"version": 1, "steps": [{"quantize": {}}] * 2}, ["steps or gates beside one quantize", "whet run"]),
    "no version": ({"steps": [{"quantize": {}}]}, ["version is missing"]),
    "a later version": ({**recipe(), "version": 2}, ["version 2", "Update whet"]),
    "two ways": (recipe(scheme="int8s", fit="1MB"), ["steps[0].quantize", "scheme and fit", "Give one"]),
    "a type": (recipe(samples="many"), ["steps[0].quantize.samples is 'many'", "integer"]),
    "a share as a number": (recipe(fit=0.25), ["steps[0].quantize.fit is 0.25"]),
    "too small": (recipe(window=4), ["steps[0].quantize.window is 4", "8"]),
    "a preset": (recipe(preset="w5"), ["steps[0].quantize.preset", "no preset 'w5'", "w8, w4, balanced, smallest"]),
    "no keys": ({}, ["version is missing"]),
}


@each("name", FAULTS)
def test_a_fault_is_named_where_it_stands(name):
    value, what = FAULTS[name]
    refused(what, value)


@each(
    "text,what",
    [
        ("version: 1\nsteps: [", ["r.yaml, line 2, column 9", "flow"]),
        ("version: 1\nsteps:\n\t- quantize: {}", ["r.yaml, line 3, column 1", "token"]),
        ("version: 1\nseed: 1\nsteps: []\nseed: 2\n", ["r.yaml, line 4, column 1", "seed is there twice"]),
        ("- quantize: {}", ["r.yaml is not a recipe", "version: 1"]),
        ("", ["r.yaml is not a recipe"]),
        ("version: !!python/name:os.system\n", ["r.yaml, line 1, column 10", "python/name"]),
    ],
)
def test_yaml_that_is_none_names_line_and_column(tmp_path, text, what):
    (tmp_path / "r.yaml").write_text(text)
    refused(what, tmp_path / "r.yaml")


def test_a_name_that_is_neither_preset_nor_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("version: 1")
    refused(["balnced is neither a file nor a preset", "Did you mean balanced?"], "balnced")
    refused(["mien.yaml", "Did you mean mine.yaml?", "Presets: w8"], tmp_path / "mien.yaml")


def test_the_schema_describes_recipes():
    schema = recipe_schema()
    keys = schema["$defs"]["QuantizeStep"]["properties"]
    assert {"for", "eval", "scheme", "preset"} <= set(keys) and not {"target", "eval_text"} & set(keys)
    assert schema["required"] == ["version", "steps"] and schema["additionalProperties"] is False
    json.dumps(schema)


# -- what is saved ----------------------------------------------------------------------------------------------------


def test_the_resolved_recipe_asks_for_the_same_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models.make(tmp_path / "model", with_tokenizer=False)
    (tmp_path / "t.txt").write_text("text")
    arguments = {
        "scheme": "int8s",
        "solver": "nearest",
        "target": "whet",
        "field": "body",
        "chat": True,
        "skip_bad": True,
    }
    asked = Compress.of("compress", **arguments, window=64, samples=5)
    made = recipe_of("model", asked, decide("model", asked, seed=4))
    again = recipe_arguments(yaml.safe_load(recipe_text(made)))
    rest = {"samples": 5, "window": 64, "seed": 4, "synthetic": 0, "folder": False, "dequantize": False}
    assert again == {"model": "model", **arguments, **rest}


def test_what_is_no_text_and_where_this_machine_keeps_things_is_left_out(tmp_path):
    original = models.make(tmp_path / "model")
    schemes = {address: "int8s" for address in decide(original, Quantize(scheme="int8s", solver="nearest")).grids}
    plan = {
        "format": "whet.plan",
        "version": 1,
        "target": "whet",
        "schemes": schemes | {"model.embed_tokens": "keep", "lm_head": "keep"},
    }
    asked = Compress.of("compress", plan=plan, text=["a document"] * 30, window=8)
    made = recipe_of(original, asked, decide(original, asked))
    assert str(tmp_path) not in recipe_text(made) and "model" not in made
    step = made["steps"][0]["quantize"]
    assert step["plan"] == "plan.json" and not {"text", "skills", "seed", "device"} & set(step) and step["window"] == 8
    assert "samples" not in step  # as many as help: a number would draw others


def test_a_finished_folder_holds_the_recipe_that_makes_it_again(tmp_path):
    original = models.make(tmp_path / "model", with_tokenizer=False)
    compress(original, tmp_path / "one", **recipe_arguments("w8"), solver="nearest")
    saved = tmp_path / "one" / "recipe.yaml"
    step = yaml.safe_load(saved.read_text())["steps"][0]["quantize"]
    assert step["scheme"] == step["embed"] == "int8s" and step["solver"] == "nearest" and step["for"] == "transformers"
    assert str(tmp_path) not in saved.read_text()
    compress(original, tmp_path / "two", **recipe_arguments(saved))
    assert models.contents(tmp_path / "one") == models.contents(tmp_path / "two")
    assert "recipe.yaml" in json.loads((tmp_path / "one" / "whet.json").read_text())["files"]


def test_python_takes_a_recipe_and_what_is_given_beside_it_goes_over_it(tmp_path):
    original = models.make(tmp_path / "model", with_tokenizer=False)
    compress(original, tmp_path / "one", scheme="int8s", embed="int8s", solver="nearest")
    compress(original, tmp_path / "preset", recipe="w8", solver="nearest")
    compress(
        recipe=recipe(scheme="int8s", embed="int8s", solver="nearest") | {"out": str(tmp_path / "mapping")},
        model=original,
    )
    compress(original, tmp_path / "file", recipe=tmp_path / "one" / "recipe.yaml")
    for other in ("preset", "mapping", "file"):
        assert models.contents(tmp_path / other) == models.contents(tmp_path / "one")
    assert (
        compress(original, tmp_path / "dry", recipe="w8", scheme="int4s", solver="nearest", dry_run=True)["scheme"]
        == "int4s"
    )
    with pytest.raises(UsageError, match="out is missing"):
        compress(original, recipe="w8")
    with pytest.raises(UsageError, match="w5"):
        compress(original, tmp_path / "two", recipe="w5")


def test_a_run_that_was_resumed_holds_it_too(tmp_path):
    original = models.make(tmp_path / "model")
    choices = {"scheme": "int8s", "text": WINDOWS, "window": 16}

    def stop(event):
        if event["event"] == "progress" and event["stage"] == "compress":
            raise KeyboardInterrupt

    compress(original, tmp_path / "whole", **choices)
    with pytest.raises(KeyboardInterrupt):
        compress(original, tmp_path / "out", **choices, on_event=stop)
    resume(tmp_path / "out")
    assert models.contents(tmp_path / "out") == models.contents(tmp_path / "whole")
    assert yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["steps"][0]["quantize"]["window"] == 16
