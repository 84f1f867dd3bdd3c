"""A step in small steps: each is trained and gated, one that does harm is undone, and a run that is killed goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
import whet
from covering import some
from killing import Ticks, counted, die, killed
from whet.checkpoint import Checkpoint, hashed_files, load_model, load_tokenizer
from whet.errors import UsageError
from whet.recipe import gradual
from whet.recipe.schedule import parse_schedule
from whet.recipe.schema import RUNS
from whet.steps.options import Distill, Prune

TEXT = models.documents(120)
SKILLS = [
    {"skill": skill, "prompt": f"{word} {i}", "choices": [" ab", " cd"], "label": i % 2}
    for skill, word in (("first", "for"), ("second", "back"))
    for i in range(40)
]
PRUNE = {"units": "channels", "importance": "magnitude", "samples": 8, "window": 24}
TRAIN = {"steps": 4, "batch": 96, "window": 24, "samples": 20, "rate": 1e-3}
LOOSE = {"kl": 50.0}


def recipe(gate=LOOSE, **schedule):
    said = {"remove": 0.4, "step": 0.2, "shape": "linear", "train": TRAIN, **schedule}
    return {"version": 1, "steps": [{"prune": PRUNE, "schedule": said, "gate": gate}]}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("gradual") / "model", blocks=2)


def go(original, out, given, **more):
    return whet.run(given, original, out, text=TEXT, device="cpu", **more)


def weights(folder):
    about = ("run.json", "compare.json", "report.html", "whet.json")
    return {name: data for name, data in models.contents(folder).items() if name not in about}


def kl(original, other):
    ids = torch.tensor([load_tokenizer(original)(text)["input_ids"][:24] for text in models.documents(20, 30, seed=9)])
    with torch.no_grad():
        p, q = (load_model(folder, torch.float32)(ids).logits.log_softmax(-1) for folder in (original, other))
    return (p.exp() * (p - q)).sum(-1).mean().item()


def test_shapes_go_from_nothing_to_all():
    training = Distill.of("distill")
    linear, cubic = (parse_schedule("45%", "12%", shape, training) for shape in ("linear", "cubic"))
    assert linear.count == 4 and linear.shaped(0.25) == 0.25
    taken = [0.45 * cubic.shaped(k / 4) for k in range(5)]
    steps_taken = [b - a for a, b in itertools.pairwise(taken)]
    assert taken[0] == 0 and taken[-1] == pytest.approx(0.45) and steps_taken == sorted(steps_taken, reverse=True)
    with pytest.raises(UsageError, match="more than the 10% that go"):
        parse_schedule("10%", "12%", "linear", training)


def test_what_passes_is_kept_and_each_step_begins_from_it(original, tmp_path):
    result = go(original, tmp_path / "out", recipe())
    (step,) = result["steps"]
    assert step["outcome"] == "kept" and result["verdict"] == "pass"
    assert [one["options"]["remove"] for one in step["attempts"]] == [0.2, 0.4]
    assert step["schedule"]["reached"] == step["schedule"]["asked"] == pytest.approx(0.4)
    lineage = [one["step"] for one in Checkpoint(tmp_path / "out").whet["lineage"]]
    assert lineage == ["prune", "distill", "prune", "distill"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "remove 0.2" in page and "remove 0.4" in page
    sizes = [one["bytes"] for one in step["attempts"]]
    assert sizes[1] < sizes[0]


def harmful(monkeypatch, when):
    """Have the training of some rounds do harm: what it writes predicts nothing."""
    taught = gradual.done

    def done(craft, request):
        found = taught(craft, request)
        if craft == "distill" and when(request):
            for file in request.out.glob("*.safetensors"):
                save_file({name: torch.randn_like(t) for name, t in load_file(file).items()}, file)
            manifest = json.loads((request.out / "whet.json").read_text())
            (request.out / "whet.json").write_text(json.dumps({**manifest, "files": hashed_files(request.out)}))
        return found

    monkeypatch.setattr(gradual, "done", done)


def test_a_harmful_step_is_rolled_back_and_the_run_ends_better(original, tmp_path, monkeypatch):
    harmful(monkeypatch, lambda request: request.out.name.endswith(".2"))
    gated = go(original, tmp_path / "gated", recipe({"kl": 1.0}))
    free = go(original, tmp_path / "free", recipe())
    (step,) = gated["steps"]
    assert [one["outcome"] for one in step["attempts"]][:3] == ["kept", "tried", "kept"]
    # half as far as the one that failed, from the model before it
    assert [one["options"]["remove"] for one in step["attempts"]][:3] == [0.2, 0.4, 0.3]
    assert gated["verdict"] == free["verdict"] == "pass"
    assert kl(original, tmp_path / "gated") < 0.1 * kl(original, tmp_path / "free")


def test_it_stops_with_the_best_so_far_and_says_why(original, tmp_path, monkeypatch):
    harmful(monkeypatch, lambda request: not request.out.name.endswith(".1"))
    result = go(original, tmp_path / "out", recipe({"kl": 1.0}), keep_failed=True)
    (step,) = result["steps"]
    assert step["outcome"] == "kept" and step["schedule"]["reached"] == pytest.approx(0.2)
    assert any("20.0% of 40.0% was taken" in str(note) for note in result["notes"])
    assert len(list((tmp_path / "out" / "failed").iterdir())) == len(step["attempts"]) - 1 == 5
    load_model(tmp_path / "out", torch.float32)


def test_the_skill_that_fell_is_protected_from_then_on():
    questions = tuple(SKILLS)
    schedule = parse_schedule("40%", "10%", "linear", Distill.of("distill"))
    schedule = dataclasses.replace(schedule, questions=questions)
    options = Prune.of("prune", remove="10%")
    gate = {
        "judgements": [
            {"figure": "retention", "of": "first", "verdict": "fail", "value": 0.9, "at": 0.95},
            {"figure": "retention", "of": "second", "verdict": "fail", "value": 0.5, "at": 0.95},
        ]
    }
    assert gradual._protected(gate, options, schedule, None, None) == ("second", None)
    assert gradual._protected(gate, options, schedule, "first", None) == ("first,second", None)
    of_kl = {"judgements": [{"figure": "kl", "of": "", "verdict": "fail", "value": 2.0, "at": 1.0}]}
    assert gradual._protected(of_kl, options, schedule, None, None) == (None, "heads,channels")
    assert gradual._protected(of_kl, options, schedule, None, "channels") == (None, "channels")


REFUSED = {
    "of another craft": ({"masks": {"remove": "50%"}}, "prune alone is done in smaller steps"),
    "without a gate": ({"prune": PRUNE}, "needs a gate"),
    "a share twice": ({"prune": {**PRUNE, "remove": "40%"}, "gate": LOOSE}, "need one remove between them"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_told_before_anything_is_done(original, tmp_path, what):
    step, said = REFUSED[what]
    step = {**step, "schedule": recipe()["steps"][0]["schedule"]}
    with pytest.raises(UsageError, match=said):
        go(original, tmp_path / "out", {"version": 1, "steps": [step]})
    typo = recipe(train={"step": 3})
    with pytest.raises(UsageError, match=r"schedule\.train.*Did you mean steps"):
        go(original, tmp_path / "out", typo)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def undisturbed(original, tmp_path_factory):
    """A run that nobody killed, and how many moments there were for it."""
    out = tmp_path_factory.mktemp("gradual") / "undisturbed"
    return out, counted(lambda: go(original, out, recipe()))


@pytest.mark.parametrize("part", some(range(6), 3))
def test_killed_and_resumed_the_bytes_are_the_same(original, undisturbed, tmp_path, part):
    whole, moments = undisturbed
    at = int(moments * (part + random.Random(part).random()) / 6) + 1
    out = tmp_path / "out"
    killed(lambda: go(original, out, recipe()), lambda: Ticks(at))
    if (out / ".whet" / "request.json").exists() or not (out / "whet.json").exists():
        go(original, out, recipe())
    assert weights(out) == weights(whole)
    assert json.loads((out / "run.json").read_text())["verdict"] == "pass"


def at_stage(stage):
    """A listener that does not survive the middle of a stage: its second sign of life, or its first where there is one
    only."""
    seen = 0

    def heard(event):
        nonlocal seen
        if event["event"] == "progress" and event["stage"] == stage:
            seen += 1
            if seen == 2 or event["of"] == 1:
                die()

    return heard


STAGES = ("score", "prune", "train", "divergence")  # scoring, pruning, training, comparing


@pytest.mark.parametrize("stage", some(STAGES, 1))
def test_killed_inside_every_stage_the_weights_are_the_same(original, tmp_path, stage):
    given = recipe()
    given["steps"][0]["prune"] = {**PRUNE, "importance": "taylor"}
    told = []
    go(original, tmp_path / "undisturbed", given, on_event=told.append)
    assert {event["stage"] for event in told if event["event"] == "progress"} >= set(STAGES)
    out = tmp_path / "out"
    killed(lambda: go(original, out, given, on_event=at_stage(stage)), lambda: None)
    go(original, out, given)
    assert weights(out) == weights(tmp_path / "undisturbed")


@pytest.mark.parametrize("name", RUNS)
def test_every_preset_tells_time_and_memory_beforehand(original, tmp_path, name):
    events = []
    found = go(original, tmp_path / "out", name, skills=SKILLS, dry_run=True, on_event=events.append)
    assert found["steps"] and found["memory"] > 0 and found["seconds"] > 0
    assert any(event["event"] == "plan" and event["memory"] for event in events) and not (tmp_path / "out").exists()
