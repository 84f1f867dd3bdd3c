"""Streams without a block are what a model without it computes."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

import models
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint
from whet.walk.omit import BASE, Omissions

TOKENS = torch.randint(2, 264, (2, 12), generator=torch.Generator().manual_seed(0))


def test_every_candidate_is_the_model_without_that_block(tmp_path):
    folder = models.make(tmp_path / "m", "llama", blocks=4)
    checkpoint = Checkpoint(folder)
    omissions = Omissions(checkpoint, anatomy(checkpoint.config, checkpoint.shapes), [TOKENS[:1], TOKENS], "cpu")
    ends = omissions.go([1], {0: 0, 2: 2, 3: 3})
    assert set(ends) == {BASE, 0, 2, 3}
    for candidate, end in ends.items():
        model = AutoModelForCausalLM.from_pretrained(folder)
        left = [layer for i, layer in enumerate(model.model.layers) if i not in (1, candidate)]
        model.model.layers = torch.nn.ModuleList(left)
        for index, layer in enumerate(left):
            layer.self_attn.layer_idx = index
        with torch.no_grad():
            expected = model.model(TOKENS, use_cache=False).last_hidden_state
        assert torch.allclose(end(1), expected, atol=1e-5)
        assert torch.allclose(end(0), expected[:1], atol=1e-5)


def test_likeness_is_the_cosine_of_a_block_s_input_and_output(tmp_path):
    folder = models.make(tmp_path / "m", "llama", blocks=3)
    checkpoint = Checkpoint(folder)
    found = Omissions(checkpoint, anatomy(checkpoint.config, checkpoint.shapes), [TOKENS], "cpu").likeness()
    model = AutoModelForCausalLM.from_pretrained(folder)
    given = {}
    for index, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda _m, args, out, index=index: given.__setitem__(index, (args[0], out)))
    with torch.no_grad():
        model(TOKENS, use_cache=False)
    for index, (before, after) in given.items():
        expected = torch.nn.functional.cosine_similarity(before, after, dim=-1).mean()
        assert abs(found[index] - expected.item()) < 1e-5
