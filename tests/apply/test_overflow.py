"""A model in float16 whose activations overflow is refused on the first window, by the block, with what to do."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
import whet
from whet.errors import UsageError

ASKED = {"scheme": "int8s", "text": models.documents(40), "samples": 8, "window": 32}


@pytest.fixture
def folder(tmp_path):
    """Finite weights in float16; in block 1 what the feed-forward gives exceeds 65504."""
    made = models.make(tmp_path / "m", dtype=torch.float16)
    state = load_file(made / "model.safetensors")
    for name in ("up_proj", "down_proj"):
        state[f"model.layers.1.mlp.{name}.weight"] *= 2000
    save_file(state, made / "model.safetensors", metadata={"format": "pt"})
    return made


def test_an_overflow_is_named_by_its_block_before_anything_is_solved(folder, tmp_path):
    with pytest.raises(UsageError, match=r"in float16, and overflows: block 1 \(mlp.down_proj\).*bfloat16"):
        whet.compress(folder, tmp_path / "out", **ASKED)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_in_bfloat16_the_same_model_is_compressed(folder, tmp_path):
    models.edit_config(folder, dtype="bfloat16")
    assert whet.compress(folder, tmp_path / "out", **ASKED)["kl"] < 0.1


def test_a_model_in_float16_that_does_not_overflow_is_not_refused(tmp_path):
    folder = models.make(tmp_path / "m", dtype=torch.float16)
    assert whet.compress(folder, tmp_path / "out", **ASKED)["kl"] < 0.01
