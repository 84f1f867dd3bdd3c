"""The metric of a block's output foretells which changes of it the prediction feels, and how much."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint
from whet.scores import Curvature
from whet.scores.curvature import even
from whet.walk import GradientWalk, Sample

TOKENS = torch.randint(0, 264, (24, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def folder(request, tmp_path_factory):
    return models.make(tmp_path_factory.mktemp(request.param) / "m", request.param, blocks=3, with_tokenizer=False)


def measured(folder):
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    found = {}
    samples = [Sample.of_text(rows) for rows in TOKENS.split(4)] * 8  # as many draws of noise
    GradientWalk(checkpoint, parts, "cpu").go(samples, Curvature(found.__setitem__))
    return found


@torch.no_grad()
def cost(model, index, change):
    """KL(original ‖ changed) where `change [hidden]` is added to what block `index` gives, at every position."""
    first = model(TOKENS).logits.double().log_softmax(-1)
    handle = model.model.layers[index].register_forward_hook(
        lambda _m, _a, out: out + change if isinstance(out, torch.Tensor) else (out[0] + change, *out[1:])
    )
    second = model(TOKENS).logits.double().log_softmax(-1)
    handle.remove()
    return float((first.exp() * (first - second)).sum(-1).mean())


def test_it_is_positive_definite_and_of_mean_one(folder):
    for metric in measured(folder).values():
        assert metric.diagonal().mean() == pytest.approx(1, rel=1e-5)
        assert torch.equal(metric, metric.t()) and torch.linalg.eigvalsh(metric.double()).min() >= 0.0999


def test_directions_that_cost_much_are_told_from_those_that_do_not(folder):
    """At the last block, whose output nothing but the head reads: a change of one position is felt at that alone."""
    metrics = measured(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    metric = metrics[2].double()
    values, vectors = torch.linalg.eigh(metric)
    told, found = [], []
    for place in (0, len(values) // 2, -1):
        told.append(float(values[place]) - 0.1)
        found.append(cost(model, 2, 0.01 * vectors[:, place].float()))
    assert found[0] < found[1] < found[2]
    for one in (1, 2):
        assert found[one] / found[2] == pytest.approx(told[one] / told[2], rel=0.35)


def test_a_block_that_nothing_feels_is_weighed_alike():
    assert torch.equal(even(torch.zeros(3, 3)), torch.eye(3))
