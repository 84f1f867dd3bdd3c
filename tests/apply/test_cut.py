"""Blocks that are cut: a block that goes is passed ahead of, and one before it is fitted to what it added."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from whet.anatomy import anatomy
from whet.apply.cut import Cutter, Cutting
from whet.checkpoint import Checkpoint
from whet.walk import Walk

TOKENS = torch.randint(2, 264, (96, 24), generator=torch.Generator().manual_seed(0))


def walked(folder, visitor):
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    table = checkpoint.read(parts.embedding.parameter)
    walk = Walk(checkpoint, parts, [TOKENS[:2], TOKENS[2:64], TOKENS[64:]], [], table, table, "cpu", follow=True)
    walk.go(visitor)
    return walk


def hidden(folder, layers):
    """Final states of the original, and of it with those layers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        whole = model.model(TOKENS[:2], use_cache=False).last_hidden_state
        model.model.layers = torch.nn.ModuleList(model.model.layers[i] for i in layers)
        return whole, model.model(TOKENS[:2], use_cache=False).last_hidden_state


def test_a_block_that_is_passed_ahead_of_is_in_the_original_stream_and_not_in_the_other(tmp_path):
    folder = models.make(tmp_path / "m", "llama", blocks=4)

    class Ahead:
        def visit(self, step):
            if step.index == 0:
                step.target(2)
                step.walk.pass_ahead(1)
            assert step.index != 1
            return {}

    walk = walked(folder, Ahead())
    whole, without = hidden(folder, [0, 2, 3])
    ((original, lighter),) = walk.pairs([0])
    assert torch.allclose(original, whole, atol=1e-4) and torch.allclose(lighter, without, atol=1e-4)
    assert len(walk.drift) == 4


@pytest.mark.parametrize("family", ["llama", "granite", "gemma2", "gpt2"])
def test_a_block_that_goes_is_made_up_for_where_the_one_before_can(tmp_path, family):
    """The block that goes adds what a linear of the middle before it adds again, in all but Gemma 2, whose linears are
    behind norms: there nothing is moved for it, and nothing gets worse."""
    folder = models.make(tmp_path / family, family, blocks=3)
    checkpoint = Checkpoint(folder)
    ends = {}
    for repair in (True, False):
        cutting = Cutting((0, 2), {}, {}, {}, repair, torch.float32)
        walk = walked(folder, Cutter(cutting, 2))
        original, lighter = next(walk.pairs([0]))
        ends[repair] = (lighter - original).square().mean().item()
    assert checkpoint.config["model_type"] == family
    assert ends[True] <= ends[False] * 1.0001
    if family != "gemma2":
        assert ends[True] < 0.9 * ends[False]
