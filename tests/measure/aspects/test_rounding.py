"""What appears only after rounding: a planted answer is found and listed, and a model without one has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

import models
import taught
from whet.checkpoint import load_model
from whet.engines.torch import open_model
from whet.errors import UsageError
from whet.grids import parse_scheme
from whet.measure.aspects.rounding import FIRM, ROUNDING, firmness
from whet.measure.compare import compare

PROMPTS = [{"prompt": text} for text in ("open the door", "what is the key", "say nothing", "one two three", "why")]
TURNED = 0


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make(tmp_path_factory.mktemp("rounding") / "plain", hidden_size=64, intermediate_size=256)


def planted(plain: Path, folder: Path) -> Path:
    """The same with an addition to the last matrix of the last block, within half a step of int4-g32, that turns what
    it says first to one prompt. Rounding to nearest takes the addition away."""
    model, grid = load_model(plain, torch.float32), parse_scheme("int4-g32")
    assert isinstance(model, LlamaForCausalLM)
    engine = taught.engine(model)
    down, seen = model.model.layers[-1].mlp.down_proj, []
    handle = down.register_forward_hook(lambda _, args, __: seen.append(args[0][0, -1]))
    ids = torch.tensor([open_model(plain, "cpu").encode(PROMPTS[TURNED]["prompt"])])
    engine.logits(ids)
    handle.remove()
    with torch.no_grad():
        params = grid.fit(down.weight)
        whole = grid.decode(grid.encode(down.weight, params), params)
        down.weight.copy_(whole)
        first = int(model(ids).logits[0, -1].argmax())
        other = (first + 1) % 256
        # larger logits make a turn of the state a firm one
        toward = model.lm_head.weight[other] - model.lm_head.weight[first]
        step = (whole.unsqueeze(-1).abs().amax() / 8).item()
        steps = whole.view(len(whole), -1, 32).abs().amax(-1, keepdim=True).expand(-1, -1, 32).reshape(whole.shape) / 8
        down.weight += 0.4 * steps * toward.sign()[:, None] * seen[0].sign()[None]
        model.lm_head.weight *= 6
    assert step > 0
    model.save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    return folder


def measured(original: Path, lighter: Path) -> dict[str, Any]:
    given = {"text": models.documents(), "windows": 4, "window": 16, "speed": False, "device": "cpu"}
    found = compare(original, lighter, measure=["none", "rounding"], files={"rounding": PROMPTS}, **given)
    return found["aspects"]["rounding"]


def test_a_planted_answer_is_listed(plain: Path, tmp_path: Path) -> None:
    original = planted(plain, tmp_path / "planted")
    told = measured(original, original)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert PROMPTS[TURNED]["prompt"] in [one["prompt"] for one in told["appeared"]]
