"""What units are worth by gradients, and blocks refined by evolution."""

from __future__ import annotations

import itertools

import torch
from transformers import AutoModelForCausalLM

import models
from whet.anatomy import anatomy
from whet.apply.evolution import refined
from whet.apply.taylor import Taylor
from whet.checkpoint import Checkpoint
from whet.walk import GradientWalk, Sample

TOKENS = torch.randint(2, 264, (3, 20), generator=torch.Generator().manual_seed(0))


def test_a_unit_is_worth_the_sum_of_weights_times_gradients_of_its_group(tmp_path):
    """Against autograd through the whole model, with the same noise at the logits."""
    folder = models.make(tmp_path / "m", "qwen2", blocks=2)
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    seen = []

    class Noted(Taylor):
        def head(self, sample, hidden, chance, slope, position):
            seen.append(chance.shape)

    visitor = Noted({"channels": 96, "heads": 2})
    GradientWalk(checkpoint, parts, "cpu", seed=5).go([Sample.of_text(TOKENS)], visitor)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    logits = model(TOKENS).logits[:, :-1]
    chance = logits.detach().flatten(0, 1).softmax(-1)
    noise = chance.sqrt() * torch.empty_like(chance).normal_(generator=torch.Generator().manual_seed(5))
    error = (noise - chance * noise.sum(1, keepdim=True)).view(logits.shape)
    layer = model.model.layers[1]
    ffn = [layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight, layer.mlp.down_proj.weight]
    attention = [layer.self_attn.get_parameter(f"{name}_proj.weight") for name in "qkvo"]
    channels, heads = torch.zeros(96), torch.zeros(2)
    for row in range(len(TOKENS)):
        found = torch.autograd.grad((logits[row] * error[row]).sum(), [*ffn, *attention], retain_graph=True)
        gate, up, down, q, k, v, o = [(w * g).abs() for w, g in zip([*ffn, *attention], found, strict=True)]
        channels += gate.sum(1) + up.sum(1) + down.sum(0)
        heads += sum(one.sum(1).view(2, -1).sum(1) for one in (q, k, v)) + o.sum(0).view(2, -1).sum(1)
    assert torch.allclose(visitor.scores["channels"][1].float(), channels, rtol=1e-3)
    assert torch.allclose(visitor.scores["heads"][1].float(), heads, rtol=1e-3)
    assert visitor.orders()["heads"][1] == heads.argsort(descending=True).tolist() and seen


def test_evolution_finds_pairs_that_a_greedy_choice_does_not_and_never_loses():
    """Blocks 0 and 1 are cheap alone and dear together; 4 and 5 are dear alone and free together."""

    def loss(gone, whole):
        apart = sum({0: 1.0, 1: 1.1, 4: 2.0, 5: 2.0}.get(index, 3.0) for index in gone)
        return apart + 5 * ({0, 1} <= gone) - 4 * ({4, 5} <= gone)

    best = min((frozenset(pair) for pair in itertools.combinations(range(6), 2)), key=lambda one: loss(one, True))
    for seed in range(5):
        found = refined([0, 2], 6, loss, seed, lambda: None)
        assert frozenset(found) == best == {4, 5} and found == refined([0, 2], 6, loss, seed, lambda: None)
    assert refined([4, 5], 6, loss, 0, lambda: None) == [4, 5]
