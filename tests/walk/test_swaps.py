"""Every swap followed through the blocks is the whole model with that part changed."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint
from whet.walk import ORIGINAL, Swaps


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3", "gpt2"])
def test_each_swap_is_the_model_with_that_part_changed(tmp_path, family) -> None:
    folder = models.make(tmp_path / "m", family, blocks=3, with_tokenizer=False)
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    chance = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 264, (2, 12), generator=chance), torch.randint(0, 264, (1, 9), generator=chance)]
    lighter = {x.address: x.view(checkpoint.read(x.parameter).float()).mul(0.9) for x in parts.linears()}
    table = checkpoint.read(parts.embedding.parameter).float().mul(0.95)
    swaps = {x.address: [x] for x in parts.blocks[1]} | {"block 2": parts.blocks[2]}
    swaps["halved"] = parts.blocks[1][:1]  # which another swap changes otherwise
    swaps[parts.embedding.address] = [parts.embedding]
    walk = Swaps(checkpoint, parts, batches, swaps, "cpu")
    asked = []

    def weights(index):
        asked.append(index)
        here = {x.address: lighter[x.address] for x in parts.blocks[index]}
        own = {name: {x.address: here[x.address] for x in mine if x.address in here} for name, mine in swaps.items()}
        (first,) = parts.blocks[1][:1]
        return {**own, "halved": {first.address: lighter[first.address] / 2}}

    walk.go(weights, table)
    assert asked == [1, 2]  # what is not swapped is not decoded

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ended = []
    norm = model.get_submodule(parts.family.norm)
    norm.register_forward_hook(lambda _module, _args, out: ended.append(out))

    def same(name):
        for number, batch in enumerate(batches):
            with torch.no_grad():
                model(batch, use_cache=False)
            rows = torch.stack([walk.final(name, number, row) for row in range(len(batch))])
            assert torch.allclose(rows, ended[-1], rtol=1e-4, atol=1e-5), name

    same(ORIGINAL)
    for name, mine in swaps.items():
        before = {}
        for linear in mine:
            weight = model.get_parameter(linear.held.parameter).data
            before[linear.held.parameter] = before.get(linear.held.parameter, weight.clone())
            if linear is parts.embedding:
                weight.copy_(table)
            else:
                linear.held.of(weight).copy_(lighter[linear.address] / (2 if name == "halved" else 1))
        with torch.no_grad():
            same(name)
        for parameter, weight in before.items():
            model.get_parameter(parameter).data.copy_(weight)
    same(ORIGINAL)
