"""Configs and files as people have them: what transformers reads, under the names that others write."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import models
import whet
from whet.checkpoint import Checkpoint, context_length, model_config

TEXT = models.documents(40)


@pytest.mark.parametrize(
    "said, type", [("fp16", torch.float16), ("torch.bfloat16", torch.bfloat16), ("auto", torch.float32)]
)
def test_types_have_other_names_too(tmp_path, said, type):
    folder = models.make(tmp_path / "m")
    models.edit_config(folder, dtype=said)
    whet.compress(folder, tmp_path / "out", scheme="int8s", solver="nearest")
    lighter = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert lighter.model.norm.weight.dtype == type
    compared = whet.compare(folder, tmp_path / "out", text=TEXT, window=32, speed=False)
    assert compared["divergence"]["kl"]["mean"] < 1e-3


OTHERS = {
    "e8m0": torch.arange(100, 104, dtype=torch.uint8).view(torch.float8_e8m0fnu),
    "u16": torch.tensor([1, 60_000]).to(torch.uint16),
    "u32": torch.tensor([1, 4_000_000_000]).to(torch.uint32),
    "u64": torch.tensor([1, 2]).to(torch.uint64),
    "c64": torch.tensor([1 + 2j, 3j], dtype=torch.complex64),
}


def test_tensors_of_every_type_of_safetensors_go_along(tmp_path):
    folder = models.make(tmp_path / "m")
    file = folder / "model.safetensors"
    save_file({**load_file(file), **OTHERS}, file, metadata={"format": "pt"})
    whet.compress(folder, tmp_path / "out", scheme="int8s", solver="nearest")
    stored = Checkpoint(tmp_path / "out")
    for name, value in OTHERS.items():
        read = stored.read(name)
        assert read.dtype == value.dtype and torch.equal(read.view(torch.uint8), value.view(torch.uint8))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_context_shorter_than_the_usual_window_is_kept_to(tmp_path, family):
    """Whatever the family calls it: GPT-2 says n_positions."""
    folder = models.make(tmp_path / "m", family)
    assert context_length(Checkpoint(folder)) == 128
    made = whet.compress(folder, tmp_path / "out", scheme="int8s", text=TEXT)
    assert made["text"]["window"] == 128


def test_infinity_is_read_as_transformers_writes_it(tmp_path):
    folder = models.make(tmp_path / "m", "mamba")
    models.edit_config(folder, time_step_limit=[0.0, {"__float__": "Infinity"}])
    assert model_config(Checkpoint(folder)).time_step_limit == [0.0, float("inf")]
