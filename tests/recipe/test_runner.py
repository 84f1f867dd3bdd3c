"""A recipe of several steps: each is gated, kept by one rename or rolled back, and killed anywhere it goes on."""

from __future__ import annotations

import functools
import itertools
import json
import random

import pytest
import torch
import yaml

import models
import whet
from covering import some
from killing import Ticks, die, killed
from whet.checkpoint import load_model
from whet.errors import UsageError
from whet.recipe import runner, trial

TEXT = models.documents(120)
SKILLS = [
    {"skill": skill, "prompt": f"{word} {i}", "choices": [" ab", " cd"], "label": i % 2}
    for skill, word in (("first", "for"), ("둘째", "가나"))
    for i in range(40)
]
LITTLE = {"samples": 8, "window": 32}
TRANSFORM = {"kind": "awq", "scheme": "int4s-g32", "for": "whet", **LITTLE}
QUANTIZE = {"scheme": "int4s-g32", "for": "whet", **LITTLE}
COMPARE = {"compare": {"windows": 8, "window": 32, "speed": False, "limits": {"max_kl": 9, "min_top1": 0.0}}}


def recipe(*steps, **more):
    return {"version": 1, "steps": [*steps, COMPARE], **more}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("run") / "model", tied=True, hidden_size=32, intermediate_size=64)


def go(original, out, given, **more):
    return whet.run(given, original, out, text=TEXT, skills=SKILLS, device="cpu", **more)


def weights(folder):
    """Every file's bytes but of those that tell times."""
    about = ("run.json", "compare.json", "report.html", "whet.json")
    return {name: data for name, data in models.contents(folder).items() if name not in about}


def test_two_steps_give_what_one_with_both_gives(original, tmp_path):
    """What passes between steps is a folder alone: transformed, then rounded, is rounded with that transform."""
    result = go(original, tmp_path / "two", recipe({"transform": TRANSFORM}, {"quantize": QUANTIZE}))
    assert [step["outcome"] for step in result["steps"]] == ["kept", "kept"] and result["verdict"] == "pass"
    manifest = json.loads((tmp_path / "two" / "whet.json").read_text())
    assert [step["step"] for step in manifest["lineage"]] == ["transform", "quantize"]
    assert manifest["base_model"]["name"] == "model"
    one = recipe({"quantize": {**QUANTIZE, "transform": "awq"}})
    go(original, tmp_path / "one", one)
    first, second = (weights(tmp_path / name) for name in ("one", "two"))
    stored = [name for name in first if name.endswith(".safetensors")]
    assert stored and all(first[name] == second[name] for name in stored)
    assert not (tmp_path / "two" / ".whet").exists()
    page = (tmp_path / "two" / "report.html").read_text()
    assert "Steps of the run" in page and "실행한 단계" in page


@pytest.mark.parametrize(
    "on_fail,outcome,tries,verdict",
    [
        ("stop", "stopped", 1, "fail"),
        ("skip", "skipped", 1, "pass"),
        ({"try": [{"scheme": "int3s-g32"}, {"scheme": "int8s"}]}, "kept", 3, "pass"),
    ],
)
def test_a_gate_that_fails_rolls_back(original, tmp_path, on_fail, outcome, tries, verdict):
    """2 bits lose too much; what was kept before stays, and the others are what the recipe says next."""
    bad = {
        "quantize": {**QUANTIZE, "scheme": "int2s-g32", "solver": "nearest"},
        "gate": {"kl": 1e-4},
        "on_fail": on_fail,
    }
    result = go(original, tmp_path / "out", recipe({"transform": TRANSFORM}, bad), keep_failed=True)
    step = result["steps"][1]
    assert (step["outcome"], len(step["attempts"]), result["verdict"]) == (outcome, tries, verdict)
    assert {attempt["gate"]["verdict"] for attempt in step["attempts"][:-1]} <= {"fail"}
    manifest = json.loads((tmp_path / "out" / "whet.json").read_text())
    assert len(manifest["lineage"]) == (2 if outcome == "kept" else 1)
    assert len(list((tmp_path / "out" / "failed").iterdir())) == (tries - 1 if outcome == "kept" else tries)
    load_model(tmp_path / "out", dtype=torch.float32)


def test_halving_goes_half_the_way_back(original, tmp_path):
    step = {"quantize": {"bits": 3.5, "for": "whet", **LITTLE}, "gate": {"kl": 1e-3}, "on_fail": "halve"}
    result = go(original, tmp_path / "out", recipe(step))
    bits = [attempt["options"]["bits"] for attempt in result["steps"][0]["attempts"]]
    assert len(bits) > 1
    assert all(now == pytest.approx((before + 32) / 2) for before, now in itertools.pairwise(bits))


def test_where_nothing_is_kept_no_model_is_written(original, tmp_path):
    step = {"quantize": {**QUANTIZE, "scheme": "int2s-g32"}, "gate": {"kl": 1e-6}}
    result = go(original, tmp_path / "out", recipe(step))
    assert result["verdict"] == "fail" and not result["kept"] and "nothing was kept" in result["notes"][-1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["run.json"]


REFUSED = {
    "rounded twice": (({"quantize": QUANTIZE}, {"quantize": QUANTIZE}), ["steps[1].quantize", "rounded already"]),
    "folded in after rounding": (({"quantize": QUANTIZE}, {"transform": TRANSFORM}), ["steps[1].transform", "rounded"]),
    "nothing changes": (({"export": {"to": "gguf"}},), ["no step that changes the model"]),
    "a gate of no figure": (({"quantize": QUANTIZE, "gate": {"klx": 1}},), ["klx", "Did you mean kl?"]),
    "a skill of none": (({"quantize": QUANTIZE, "gate": {"retention.firs": 1}},), ["firs", "Did you mean"]),
    "no gate to fail": (({"quantize": QUANTIZE, "on_fail": "skip"},), ["there is no gate"]),
    "a word for what is next": (
        ({"quantize": QUANTIZE, "gate": {"kl": 1}, "on_fail": "halv"},),
        ["steps[0].on_fail is 'halv'"],
    ),
    "nothing to try": (
        ({"quantize": QUANTIZE, "gate": {"kl": 1}, "on_fail": {"try": []}},),
        ["steps[0].on_fail.try is []"],
    ),
    "half of a scheme": (({"quantize": QUANTIZE, "gate": {"kl": 1}, "on_fail": "halve"},), ["have no half"]),
    "a scheme of none": (({"transform": TRANSFORM}, {"quantize": {**QUANTIZE, "scheme": "int4x"}}), ["int4x"]),
    "an option of none": (({"quantize": {"schem": "int4s"}},), ["steps[0].quantize.schem", "Did you mean scheme?"]),
    "two in one": (({"quantize": QUANTIZE, "transform": TRANSFORM},), ["transform and quantize"]),
    "another try of none": (
        ({"quantize": QUANTIZE, "gate": {"kl": 1}, "on_fail": {"try": [{"scheme": "int4s", "bitz": 1}]}},),
        ["on_fail.try[0]", "bitz"],
    ),
}


def test_what_makes_no_sense_is_refused_before_anything_is_done(original, tmp_path):
    for name, (steps, what) in REFUSED.items():
        with pytest.raises(UsageError) as raised:
            go(original, tmp_path / "out", {"version": 1, "steps": [*steps]})
        message = str(raised.value)
        assert all(part in message for part in what), (name, message)
        assert not (tmp_path / "out").exists(), name
    with pytest.raises(UsageError, match="comes after compare"):
        go(original, tmp_path / "out", {"version": 1, "steps": [COMPARE, {"quantize": QUANTIZE}]})


def test_text_and_questions_are_divided_and_the_reports_are_opened_once(original, tmp_path, monkeypatch):
    seen = []
    real = runner.compare
    monkeypatch.setattr(runner, "compare", lambda *a, **k: seen.append(k) or real(*a, **k))
    step = {"quantize": QUANTIZE, "gate": {"kl": 9.0, "retention": 0.0}}
    divided = []
    of = runner.Divided.of.__func__
    monkeypatch.setattr(runner.Divided, "of", classmethod(lambda *a, **k: divided.append(of(*a, **k)) or divided[-1]))
    go(original, tmp_path / "out", recipe(step))
    (one,) = divided
    (reported,) = seen
    assert reported["text"] == one.report
    assert not set(one.report) & {*one.solve, *one.gate} and not set(one.solve) & set(one.gate)
    questions = {name: {item.prompt for item in items} for name, items in one.items.items()}
    assert not questions["gate"] & questions["report"] and {len(questions["gate"]), len(questions["report"])} == {40}
    assert {item["prompt"] for item in reported["skills"]} == questions["report"]


RUN = recipe(
    {"transform": TRANSFORM},
    {"quantize": {**QUANTIZE, "scheme": "int2s-g32"}, "gate": {"kl": 1e-4}, "on_fail": {"try": [{"scheme": "int8s"}]}},
)


@pytest.fixture(scope="module")
def undisturbed(original, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    return go(original, out, RUN), weights(out)


def gone_on_with(original, out):
    if (out / ".whet" / "request.json").exists():
        return whet.resume(out)
    return go(original, out, RUN) if not (out / "whet.json").exists() else None


def finished(file, written=True):
    """Die when a file of this name has just been written into the run's folder, or is about to be."""
    real = trial.write_json

    def wrapped(path, value):
        if path.name.endswith(file) and not written:
            die()
        real(path, value)
        if path.name.endswith(file):
            die()

    trial.write_json = wrapped


def test_killed_between_a_gate_and_its_adoption_and_anywhere_else(original, undisturbed, tmp_path):
    names = ("made.json", "2.gate.json", "02-quantize.json", "01-transform.json")
    moments = [functools.partial(finished, name) for name in names]
    moments += [functools.partial(finished, name, written=False) for name in some(("1.made.json", "2.made.json"), 2)]
    chance = random.Random(0)
    moments += some([functools.partial(Ticks, chance.randint(20, 260)) for _ in range(4)], 4)
    for number, moment in enumerate(moments):
        out = tmp_path / str(number)
        killed(lambda out=out: go(original, out, RUN), moment)
        gone_on_with(original, out)
        assert weights(out) == undisturbed[1], number
        found = whet.status(out)
        assert found["state"] == "finished" and [step["tries"] for step in found["steps"]] == [1, 2]


def test_a_stopped_run_is_told_and_another_recipe_is_refused(original, tmp_path):
    out = tmp_path / "out"
    killed(lambda: go(original, out, RUN), lambda: finished("01-transform.json"))
    found = whet.status(out)
    assert found["state"] == "stopped" and [step["outcome"] for step in found["steps"]] == ["kept", "stopped run"]
    other = recipe({"transform": TRANSFORM}, {"quantize": {**QUANTIZE, "scheme": "int8s"}})
    with pytest.raises(UsageError, match=r"02-quantize was .* and is "):
        go(original, out, other)
    assert go(original, out, RUN)["verdict"] == "pass"


def test_the_recipe_in_the_folder_does_the_same_again(original, tmp_path, undisturbed):
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": one}, ensure_ascii=False) + "\n" for one in TEXT))
    given = recipe({"quantize": QUANTIZE}, text=str(tmp_path / "text.jsonl"))
    whet.run(given, original, tmp_path / "one", device="cpu")
    again = yaml.safe_load((tmp_path / "one" / "recipe.yaml").read_text())
    whet.run(again, original, tmp_path / "two", device="cpu")
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
