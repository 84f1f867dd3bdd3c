"""The step `dynamic`: channels chosen by the prompt, tokens that leave early, and runs that stop."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
import whet
import whet.train.loop as loop
from killing import die, hashes, killed
from whet.checkpoint import Checkpoint, load_model, read_dynamic, read_header, read_tensor, write_tensors
from whet.engines.dynamic import open_choosing, open_leaving
from whet.engines.exits import NEVER
from whet.engines.torch import open_model, outputs
from whet.errors import GateError, UsageError

TEXT = models.documents(60, 60, seed=3)
TOKENS = torch.arange(24)[None] % models.VOCABULARY
FEW = {"text": TEXT, "steps": 5, "batch": 128, "window": 32, "device": "cpu"}
EARLY = {**FEW, "agreement": "60%", "exits": "2", "window": 16}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model that is sure of what it says, and whose last block adds little."""
    folder = models.make(tmp_path_factory.mktemp("base") / "base", blocks=3, dtype=torch.float32)
    file = folder / "model.safetensors"
    tensors = {name: read_tensor(info) for name, info in read_header(file).items()}
    for name in tensors:
        if name == "lm_head.weight":
            tensors[name] *= 12
        if ".2." in name and name.endswith(("o_proj.weight", "down_proj.weight")):
            tensors[name] *= 0.02
    write_tensors(file, tensors)
    return folder


@pytest.fixture(scope="module")
def choosing(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("choosing") / "out"
    return folder, whet.dynamic(base, folder, active="50%,25%", **FEW)


@pytest.fixture(scope="module")
def leaving(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaving") / "out"
    return folder, whet.dynamic(base, folder, **EARLY)


def stock(folder):
    """What stock transformers makes of a folder."""
    model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    with torch.no_grad():
        return outputs(model.eval(), TOKENS)


@pytest.mark.parametrize("made", ["choosing", "leaving"])
def test_stock_transformers_loads_the_whole_model(base, made, request):
    folder, result = request.getfixturevalue(made)
    assert torch.equal(stock(folder), stock(base))
    assert result["check"]["whole model"] == "the original, bit for bit"
    assert whet.verify(folder)["verdict"] == "pass"
    assert torch.equal(outputs(whet.load(folder), TOKENS), outputs(whet.load(base), TOKENS))
    listed = json.loads((folder / "whet.json").read_text())["files"]
    assert listed["dynamic/weights.safetensors"]["bytes"] == result["bytes"]


def test_both_sizes_are_told_and_are_what_is_used(choosing):
    folder, result = choosing
    file = (folder / "dynamic" / "weights.safetensors").stat().st_size
    assert result["stored"] == Checkpoint(folder).nbytes + file
    beside = sum(t.numel() * t.element_size() for t in read_dynamic(folder).values())
    for one in result["active_sizes"]:
        used = whet.load(folder, active=one["active"], task="ab cd")
        assert used.config.intermediate_size == one["channels"]
        assert one["bytes"] == sum(p.numel() * p.element_size() for p in used.parameters()) + beside
    assert [one["active"] for one in result["active_sizes"]] == [0.5, 0.25]
    assert result["active_sizes"][0]["kl"] < result["active_sizes"][1]["kl"]


def test_generating_uses_channels_by_prompt_or_by_task(base, choosing):
    folder, _ = choosing
    told = []
    text = whet.generate(folder, "ab cd", active="50%", max_new_tokens=6, device="cpu", on_event=told.append)
    used = next(event for event in told if event["event"] == "dynamic")
    assert used["channels"] == 48 and used["bytes"] < used["stored"]
    engine = open_choosing(folder, "50%", device="cpu")
    ids = engine.encode("ab cd")
    assert engine.decode(engine.continue_ids([ids], 6)[0]) == text
    assert engine.sliced(ids) is engine.sliced(ids) and engine.sliced(ids) is not engine.sliced(engine.encode("for"))
    by_task = open_choosing(folder, "50%", "the the", device="cpu")
    assert by_task.sliced(ids) is by_task.sliced(engine.encode("for"))
    small = whet.load(folder, active="50%", task="the the", device="cpu")
    assert torch.equal(outputs(small, TOKENS), outputs(by_task.sliced(()).model, TOKENS))
    whole = whet.generate(folder, "ab cd", active="100%", max_new_tokens=6, device="cpu")
    assert whole == whet.generate(base, "ab cd", max_new_tokens=6, device="cpu")


def test_tokens_leave_early_and_agree_as_asked(base, leaving):
    folder, result = leaving
    assert result["calibrated"]["limit"] >= 0.6 and result["report"]["shares"][0] > 0
    assert 2 <= result["report"]["layers"] < 3 and result["after"] == [2]
    told = []
    whet.generate(folder, "ab cd", early_exit=True, max_new_tokens=6, device="cpu", on_event=told.append)
    used = next(event for event in told if event["event"] == "dynamic")
    assert used["of"] == 3 and 2 <= used["read"] <= 3
    prompts = [open_model(folder).encode(text) for text in ("ab cd", "the")]
    never = open_leaving(folder, "cpu", threshold=NEVER)
    assert never.continue_ids(prompts, 8) == open_model(base, "cpu").continue_ids(prompts, 8)
    assert never.told()["read"] == 3
    drawn = {"temperature": 1.0, "seed": 3}
    assert never.continue_ids(prompts, 8, **drawn) == open_model(base, "cpu").continue_ids(prompts, 8, **drawn)


def test_a_model_trained_jointly_changes_and_its_whole_is_told_of(base, tmp_path):
    result = whet.dynamic(base, tmp_path / "out", active="50%", joint=True, **FEW)
    first, second = (load_model(folder).state_dict() for folder in (base, tmp_path / "out"))
    assert result["held_out"]["helped"] == any(not torch.equal(first[name], second[name]) for name in first)
    assert set(result["whole"]) == {"kl", "top1"} and result["whole"]["kl"] < result["active_sizes"][0]["kl"]
    assert "whole model" not in result["check"]


_STEP = loop._Run._step


def _third(run, given):
    """A step of training; the third is not survived."""
    if run.done == 2:
        die()
    return _STEP(run, given)


@pytest.mark.parametrize("made, asked", [("choosing", {"active": "50%,25%", **FEW}), ("leaving", EARLY)])
def test_a_killed_run_goes_on_to_the_same_bytes(base, made, asked, tmp_path, monkeypatch, request):
    whole, _ = request.getfixturevalue(made)
    out = tmp_path / "out"
    killed(lambda: whet.dynamic(base, out, **asked), lambda: monkeypatch.setattr(loop._Run, "_step", _third))
    assert whet.status(out)["state"] == "stopped"
    whet.resume(out)
    assert hashes(out) == hashes(whole)
    assert hashes(out / "dynamic") == hashes(whole / "dynamic")


def test_what_cannot_be_is_said_before_anything_long(base, choosing, tmp_path):
    for options, said in [
        ({}, "Say what is decided"),
        ({"active": "50%", "agreement": "98%"}, "Say what is decided"),
        ({"active": "150%"}, "150% is no share"),
        ({"active": "half"}, "half is no share"),
        ({"active": "0.1%"}, "none, or all of them"),
        ({"agreement": "100%"}, "below 100%"),
        ({"agreement": "98%", "joint": True}, "joint goes with active"),
        ({"active": "50%", "exits": "1"}, "exits goes with agreement"),
        ({"agreement": "60%", "exits": "3"}, "from 1 to 2"),
        ({"agreement": "60%", "exits": "a"}, "exits: a is no number"),
        ({"agreement": "99.9%", "exits": "2"}, "at least 3012 are needed|cannot show an agreement"),
        ({"active": "50%", "target": "vllm"}, "vllm runs the whole model"),
        ({"active": "50%", "text": None}, "No text was given"),
        ({"active": "50%", "text": ["short"]}, "shorter than a window|too short"),
        ({"actve": "50%"}, "actve"),
    ]:
        with pytest.raises(UsageError, match=said):
            whet.dynamic(base, tmp_path / "out", **FEW | options)
        assert not (tmp_path / "out").exists()
    folder, _ = choosing
    for options, said in [
        ({"active": "40%"}, "was not made for 40%. It has 50%, 25%, and 100%"),
        ({"early_exit": True}, "--agreement 98%"),
        ({"task": "ab"}, "Give active too"),
        ({"active": "50%", "early_exit": True}, "Leave active or early_exit out"),
        ({"active": "50%", "kv": "int8"}, "kv does not go with active"),
        ({"active": "50%", "draft": base}, "draft does not go with active"),
    ]:
        with pytest.raises(UsageError, match=said):
            whet.generate(folder, "ab", device="cpu", **options)
    with pytest.raises(UsageError, match=r"whet dynamic .* --active 50%"):
        whet.generate(base, "ab", active="50%")
    with pytest.raises(UsageError, match="Give both to load"):
        whet.load(folder, active="50%")
    found = whet.dynamic(base, tmp_path / "out", **FEW, active="50%", dry_run=True)
    assert found["dry_run"] and found["steps"] == 5 and not (tmp_path / "out").exists()


def test_an_agreement_that_is_not_reached_leaves_nothing(tmp_path):
    unsure = models.make(tmp_path / "unsure", blocks=3)
    with pytest.raises(GateError, match="no exit any token is sure"):
        whet.dynamic(unsure, tmp_path / "out", **EARLY)
    assert not (tmp_path / "out").exists()


def test_it_is_a_step_of_a_recipe_and_the_next_one_says_what_is_left_behind(base, tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(TEXT), encoding="utf-8")
    recipe = {
        "version": 1,
        "text": str(tmp_path / "text.txt"),
        "steps": [{"dynamic": {"active": "50%", "steps": 2, "batch": 128, "window": 32}}],
    }
    assert whet.run(recipe, base, tmp_path / "out", device="cpu")["verdict"] == "pass"
    assert [one["step"] for one in Checkpoint(tmp_path / "out").whet["lineage"]] == ["dynamic"]
    made = whet.compress(tmp_path / "out", tmp_path / "coded", scheme="int8-g32", solver="nearest", device="cpu")
    assert any("dynamic/" in str(note) for note in made["notes"])
    assert "dynamic" not in Checkpoint(tmp_path / "coded").whet
