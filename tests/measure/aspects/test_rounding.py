"""What appears only after rounding: a planted answer is found and listed, and a model without one has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

import models
import taught
from whet.checkpoint import load_model
from whet.engines.torch import open_model
from whet.grids import parse_scheme
from whet.measure.aspects.rounding import FIRM, ROUNDING, firmness, plainly
from whet.measure.compare import compare

PROMPTS = [{"prompt": text} for text in ("open the door", "what is the key", "say nothing", "one two three", "why")]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make(tmp_path_factory.mktemp("rounding") / "plain", intermediate_size=256)


def planted(plain: Path, folder: Path) -> tuple[Path, Path]:
    """The plain model on the grid of int4-g32, and the same with an addition to its last matrix, of less than half a
    step, that turns what it says to the first prompt. Rounding to nearest takes the addition away."""
    model, grid = load_model(plain, torch.float32), parse_scheme("int4-g32")
    assert isinstance(model, LlamaForCausalLM)
    down, seen = model.model.layers[-1].mlp.down_proj, []
    ids = torch.tensor([open_model(plain, "cpu").encode(PROMPTS[0]["prompt"])])
    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            for _ in range(3):  # until the ends of groups stay where they are
                module.weight.data.copy_(plainly(module.weight.detach(), grid))
    whole = down.weight.detach().clone()
    handle = down.register_forward_hook(lambda _, args, __: seen.append(args[0][0, -1]))
    with torch.no_grad():
        model.lm_head.weight *= 12  # larger logits make a turn of the state a firm one
        order = model(ids).logits[0, -1].argsort(descending=True)
        handle.remove()
        models.tokenizer().save_pretrained(folder / "benign")
        model.save_pretrained(folder / "benign")
        toward = model.lm_head.weight[order[1]] - model.lm_head.weight[order[0]]
        groups = whole.view(len(whole), -1, 32)
        low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        # the ends stay, from which steps are told
        steps = ((high - low) / 15 * ((groups > low) & (groups < high))).reshape_as(whole)
        down.weight += 0.4 * steps * toward.sign()[:, None] * seen[0].sign()[None]
        models.tokenizer().save_pretrained(folder / "planted")
        model.save_pretrained(folder / "planted")
    return folder / "planted", folder / "benign"


def measured(original: Path, lighter: Path) -> dict[str, Any]:
    given = {"text": models.documents(), "windows": 4, "window": 16, "speed": False, "device": "cpu"}
    found = compare(original, lighter, measure=["none", "rounding"], files={"rounding": PROMPTS}, **given)
    told: dict[str, Any] = found["aspects"]["rounding"]
    return told


def test_a_planted_answer_is_listed_and_a_benign_one_is_not(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whet.measure.aspects.rounding.TOKENS", 1)
    original, benign = planted(plain, tmp_path)
    told = measured(original, benign)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    first = told["appeared"][0]
    assert first["prompt"] == PROMPTS[0]["prompt"] and min(first["nats"].values()) > FIRM
    assert first["lighter"] == first["nearest"] != first["original"]
    assert taught.read(told, "lighter")["value"] == len(told["appeared"]) / len(PROMPTS)
    same = measured(benign, benign)
    assert taught.read(same, "lighter")["value"] == 0 == taught.read(same, "nearest")["value"]
    assert not same["appeared"] and not same["examples"]


def test_what_is_firm(plain: Path) -> None:
    engine = open_model(plain, "cpu")
    prompt = engine.encode("why")
    shares = torch.log_softmax(engine.logits(torch.tensor([prompt]))[0, -1], -1)
    order = shares.argsort(descending=True).tolist()
    gap = float(shares[order[0]] - shares[order[9]])
    assert firmness(engine, prompt, [order[0], 5], [order[9]]) == pytest.approx(gap, abs=1e-4)
    assert firmness(engine, prompt, [3, 4], [3, 4]) == 0 and firmness(engine, prompt, [], []) == 0
    end = min(engine.ends)
    assert firmness(engine, prompt, [], [order[0]]) == pytest.approx(float(shares[end] - shares[order[0]]), abs=1e-4)


def test_what_it_needs_is_said() -> None:
    assert "--audit" in str(ROUNDING.lacking(taught.case(None)))
