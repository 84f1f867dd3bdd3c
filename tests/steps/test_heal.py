"""The step `heal`: skills come back, others stay, a roll-back leaves nothing, and runs that are killed go on."""

from __future__ import annotations

import itertools
import json
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
import whet
from covering import some
from killing import Ticks, counted, hashes, killed
from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from whet.steps.coded import table_of

LETTERS = "abcdefgh"
HOW = {"steps": 30, "batch": 256, "window": 24, "device": "cpu", "problems": 60}


def questions() -> list[dict[str, str]]:
    """Two skills: the letter before the sign, and the one that is next to it."""
    found = []
    for a, b in itertools.product(LETTERS, LETTERS):
        after = LETTERS[(LETTERS.index(b) + 1) % len(LETTERS)]
        found.append({"skill": "same", "prompt": f"1{a}{b}=", "answer": b})
        found.append({"skill": "next", "prompt": f"2{a}{b}=", "answer": after})
    return found


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A tiny model that answers all of them."""
    folder = models.make(tmp_path_factory.mktemp("taught") / "original")
    tokenizer = models.tokenizer()
    rows = torch.tensor([tokenizer(f"{one['prompt']}{one['answer']}\n")["input_ids"] for one in questions()])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    for step in range(150):
        optimiser.param_groups[0]["lr"] = 4e-3 * (1 - step / 150)
        loss = torch.nn.functional.cross_entropy(model(rows).logits[:, -3:-1].flatten(0, 1), rows[:, -2:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hurt(original, tmp_path_factory):
    """It on few bits, which answers fewer."""
    folder = tmp_path_factory.mktemp("hurt") / "hurt"
    whet.compress(original, folder, scheme="int2z-g32", solver="nearest", target="whet", device="cpu")
    return folder


@pytest.fixture(scope="module")
def asked(original):
    return {**HOW, "original": original, "skills": questions(), "text": models.documents(40, 12)}


@pytest.mark.parametrize("how", some(["weights", "scales", "adapter"], 2))
def test_what_was_lost_comes_back_and_the_lineage_says_so(original, hurt, asked, tmp_path, how):
    before = models.contents(hurt)
    result = whet.heal(hurt, tmp_path / "out", **asked | {"how": how, "skill": "same", "steps": 60, "to": 0.95})
    assert models.contents(hurt) == before
    practised = [entry for entry in result["skills"] if entry["practised"]]
    assert result["outcome"] in ("healed", "better") and practised, result["reason"]
    assert all(entry["after"]["value"] > entry["before"]["value"] for entry in practised)
    assert not any(entry["fell"] for entry in result["skills"])
    record = Checkpoint(tmp_path / "out").whet["lineage"][-1]
    assert record["step"] == "heal" and record["how"] == how and record["trained"]
    assert {entry["skill"] for entry in record["skills"]} == {"same", "next"}
    assert whet.verify(tmp_path / "out")["verdict"] == "pass"
    assert "Skills given back" in (tmp_path / "out" / "README.md").read_text()
    if how != "weights":  # scales alone, or zeros alone
        codes = [{a: Checkpoint(one).read(f"{a}.weight_packed") for a in table_of(Checkpoint(hurt))} for one in
                 (hurt, tmp_path / "out")]  # fmt: skip
        assert all(torch.equal(codes[0][address], codes[1][address]) for address in codes[0])
    # the folder answers as the result says
    found = whet.compare(original, tmp_path / "out", text=models.documents(20, 12, seed=5), skills=questions(),
                         device="cpu", speed=False)  # fmt: skip
    assert sum(entry["lighter"]["accuracy"] for entry in found["skills"]) > 0.5


def test_where_nothing_is_gained_nothing_is_written(hurt, asked, tmp_path):
    result = whet.heal(hurt, tmp_path / "out", **asked | {"skill": "same", "steps": 1, "rate": 1e-9})
    assert result["outcome"] == "rolled back" and "no more than chance" in str(result["reason"])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_lost_nothing_is_left_alone(original, asked, tmp_path):
    whet.compress(original, tmp_path / "eight", scheme="int8s", solver="nearest", device="cpu")
    result = whet.heal(tmp_path / "eight", tmp_path / "out", **asked)
    assert result["outcome"] == "unhurt" and not (tmp_path / "out").exists()


def test_a_comparison_beside_the_folder_says_what_is_hurt(hurt, asked, tmp_path):
    """Nothing of it is read but the figures of its skills."""
    entries = [
        {"skill": "same", "retention": {"value": 1.0, "interval": [0.9, 1.1]}},
        {"skill": "next", "retention": {"value": 0.5, "interval": [0.4, 0.6]}},
    ]
    (hurt / "compare.json").write_text(json.dumps({"skills": entries}))
    try:
        result = whet.heal(hurt, tmp_path / "out", **asked | {"steps": 1, "rate": 1e-9})
    finally:
        (hurt / "compare.json").unlink()
    assert [entry["skill"] for entry in result["skills"] if entry["practised"]] == ["next"]


def test_it_is_a_step_of_a_recipe(original, tmp_path):
    steps = [
        {"quantize": {"scheme": "int2z-g32", "solver": "nearest", "for": "whet", "window": 24}},
        {"heal": {"skill": "same", "steps": 40, "batch": 256, "window": 24, "to": 0.1}},
        {"compare": {"speed": False, "measure": ["none"]}},
    ]
    recipe = {"version": 1, "steps": steps}
    text, out = models.documents(60, 12), tmp_path / "out"
    result = whet.run(recipe, original, out, text=text, skills=questions(), device="cpu")
    assert result["kept"] == ["1 quantize", "2 heal"]
    lineage = [record["step"] for record in Checkpoint(out).whet["lineage"]]
    assert lineage in (["quantize", "heal"], ["quantize"])  # rolled back, the step leaves what it read


def test_what_cannot_be_is_told_before_anything_is_done(original, hurt, asked, tmp_path):
    for changed, said in (
        ({"original": None}, "No original was given"),
        ({"skills": None}, "No questions were given"),
        ({"skill": "smae"}, "Did you mean same"),
        ({"skill": ","}, "names none"),
        ({"how": "weigths"}, "Did you mean weights"),
        ({"rank": 4}, "rank is that of an adapter"),
        ({"minutes": 1.0}, "Give one of them"),
        ({"practice": questions()[:4]}, "must not be practised on"),
        ({"practice": [q | {"prompt": "x"} for q in questions()[:1]], "skill": "next"}, "no question of next"),
        ({"stpes": 3}, "steps"),
    ):
        with pytest.raises(UsageError, match=said):
            whet.heal(hurt, tmp_path / "out", **asked | changed)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="has no scales"):
        whet.heal(original, tmp_path / "out", **asked | {"how": "scales"})
    needs = whet.heal(hurt, tmp_path / "out", **asked, dry_run=True)
    assert needs["memory"] > 0 and needs["seconds"] > 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", some(range(4), 1))
def test_killed_and_resumed_the_bytes_are_the_same(hurt, asked, tmp_path, part):
    def work(out):
        whet.heal(hurt, out, **asked | {"skill": "same", "steps": 20, "to": 0.1})

    moments = counted(lambda: work(tmp_path / "undisturbed"))
    at = int(moments * (part + random.Random(part).random()) / 4) + 1
    out = tmp_path / "out"
    killed(lambda: work(out), lambda: Ticks(at))
    whet.resume(out) if (out / ".whet" / "request.json").exists() else work(out)
    assert hashes(out) == hashes(tmp_path / "undisturbed")
