"""The laws of progress on whole verbs: one way from 0 to 1 that never goes back, gone on with where it stood."""

from __future__ import annotations

import json

import pytest

import models
import whet
from whet.apply.run import RUN
from whet.errors import UsageError

TEXT = {"text": models.documents(60), "samples": 12, "window": 32}
ITEMS = [
    {"skill": "echo", "prompt": f"ab {i}", "choices": [" cd", " e."], "label": i % 2, "group": str(i)}
    for i in range(48)
]
RUNS = {
    "a scheme": {"scheme": "int8s"},
    "to nearest, without text": {"scheme": "int8s", "solver": "nearest", "text": None},
    "text that it writes": {"scheme": "int8s", "text": None, "samples": 4, "window": 16},
    "trained and tuned": {"scheme": "int4s-g32", "solver": "best", "synthetic": 256},
    "rotated": {"scheme": "int4s-g32", "transform": "rotate"},
    "learned rotations": {"scheme": "int4s-g32", "transform": "spinquant", "embed": "int8s"},
    "judged transforms": {"scheme": "int4s-g32", "transform": "auto"},
    "a number of bits": {"bits": 9, "target": "whet"},
    "a quality": {"quality": 0.98, "target": "whet", "skills": ITEMS},
}
RECIPE = {
    "version": 1,
    "steps": [
        {"masks": {"remove": "0.1", "importance": "magnitude", "update": False}},
        {"quantize": {"scheme": "int8s"}, "gate": {"kl": 100.0}},
        {"compare": {"speed": False, "window": 32}},
    ],
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return models.make(tmp_path_factory.mktemp("model") / "model", blocks=2)


def followed(work, first=0.05):
    """What `work` tells of progress, once it is proved to be one way."""
    told = []
    work(lambda event: told.append(event) if event["event"] == "progress" else None)
    wholes = [event["whole"] for event in told]
    assert wholes == sorted(wholes) and wholes[-1] == 1.0 and sum(whole == 1.0 for whole in wholes) == 1
    assert 0 <= wholes[0] < first
    assert all(event["seconds_left"] > 0 for event in told[:-1]) and told[-1]["seconds_left"] == 0
    return told


@pytest.mark.parametrize("name", list(RUNS))
def test_compress_is_one_way(original, tmp_path, name):
    told = followed(lambda tell: whet.compress(original, tmp_path / "o", **{**TEXT, **RUNS[name]}, on_event=tell))
    # every stage moves it
    first, last = {}, {}
    for event in told:
        first.setdefault(event["stage"], event["whole"])
        last[event["stage"]] = event["whole"]
    stuck = [stage for stage in first if first[stage] == last[stage] and stage not in ("verify", "skills", "finish")]
    assert not stuck


def test_masks_are_one_way(original, tmp_path):
    followed(lambda tell: whet.masks(original, tmp_path / "o", remove="50%", **TEXT, on_event=tell))


def test_planning_is_one_way(original, tmp_path):
    followed(lambda tell: whet.plan(original, bits=9, target="whet", **TEXT, on_event=tell))


def test_inspecting_is_one_way(original):
    followed(lambda tell: whet.inspect(original, skills=ITEMS, **TEXT, on_event=tell), first=0.5)


def test_comparing_is_one_way(original):
    asked = {"text": TEXT["text"], "skills": ITEMS, "window": 32, "batch_tokens": 128, "speed": False}
    told = followed(lambda tell: whet.compare(original, original, **asked, on_event=tell), first=0.5)
    assert {event["stage"] for event in told} == {"divergence", "skills, original", "skills, lighter"}


def run(original, out, tell, recipe=RECIPE):
    return whet.run(recipe, original, out, text=models.documents(400), on_event=tell)


def test_a_recipe_is_one_way(original, tmp_path):
    told = followed(lambda tell: run(original, tmp_path / "o", tell))
    assert {"read", "compress", "divergence", "finish"} <= {event["stage"] for event in told}


def test_a_step_that_is_tried_again_finds_its_place(original, tmp_path):
    gated = {"quantize": {"scheme": "int2s"}, "gate": {"kl": 1e-6}, "on_fail": {"try": [{"scheme": "int3s"}]}}
    recipe = {"version": 1, "steps": [RECIPE["steps"][0], gated]}
    told = followed(lambda tell: run(original, tmp_path / "o", tell, recipe))
    tries = [event["whole"] for event in told if event["stage"] == "compress" and event["unit"] == "block 0"]
    assert len(tries) == 3 and tries[0] < tries[1] < tries[2] < 1


class Stopped(Exception):
    pass


def stopped(work, stage, done, unit=None):
    """`work` stopped at a stage; what it had told by then."""
    told = []

    def tell(event):
        if event["event"] != "progress":
            return
        told.append(event)
        if (event["stage"], event["done"]) == (stage, done):
            raise Stopped

    with pytest.raises(Stopped):
        work(tell)
    return told


WORKS = {
    "a scheme": ("compress", 3),
    "trained and tuned": ("compress", 3),
    "a number of bits": ("compress", 2),
}


@pytest.mark.parametrize("name", list(WORKS))
def test_resumed_it_begins_where_it_stood(original, tmp_path, name):
    out, asked = tmp_path / "o", {**TEXT, **RUNS[name]}
    before = stopped(lambda tell: whet.compress(original, out, **asked, on_event=tell), *WORKS[name])[-1]
    now = whet.status(out)["now"]
    assert now["whole"] == pytest.approx(before["whole"], abs=0.01) and now["whole"] > 0.05
    after = followed(lambda tell: whet.resume(out, on_event=tell), first=1.0)
    assert after[0]["stage"] == "read" and after[0]["whole"] == now["whole"]


def test_masks_and_recipes_are_gone_on_with_there_too(original, tmp_path):
    out = tmp_path / "masks"
    stopped(lambda tell: whet.masks(original, out, remove="50%", **TEXT, on_event=tell), "compress", 3)
    at = whet.status(out)["now"]["whole"]
    assert followed(lambda tell: whet.resume(out, on_event=tell), first=1.0)[0]["whole"] == at > 0.05
    out = tmp_path / "recipe"
    stopped(lambda tell: run(original, out, tell), "divergence", 1)
    at = whet.status(out)["now"]["whole"]
    assert followed(lambda tell: whet.resume(out, on_event=tell), first=1.0)[0]["whole"] == at > 0.05


def test_a_call_that_is_refused_leaves_what_was_told(original, tmp_path):
    out = tmp_path / "o"
    stopped(lambda tell: whet.compress(original, out, scheme="int8s", **TEXT, on_event=tell), "compress", 2)
    before = (out / RUN / "progress.json").read_bytes()
    with pytest.raises(UsageError):
        whet.compress(original, out, scheme="int4s-g32", **TEXT)
    assert (out / RUN / "progress.json").read_bytes() == before
    assert json.loads(before)["unit"] == "block 0"
