"""Scorers for study keep the laws of what they claim to be: order, power of the error, agreement with each other."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
from cptquant import canonical_correlation
from scorers import (
    SCORERS,
    fisher_position,
    fisher_window,
    gradient_output,
    measured_kl,
    priced,
    second_moment,
    taylor,
)
from scoring_material import Material, kl, second_moments

SCALES = {"none": 0.0, "small": 1e-3, "double": 2e-3, "large": 0.3}
BY_SCHEME = [name for name in SCORERS if name not in ("PMPQ", "TDMPQ")]


@pytest.fixture(scope="module")
def material() -> Material:
    """A tiny model; the rounded weights are the original's plus noise of a known size."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(models.config(blocks=2), dtype=torch.float32).eval()
    addresses = [
        f"model.layers.{i}.{name}"
        for i in range(2)
        for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
    ]
    batches = [torch.randint(0, models.VOCABULARY, (8, 24)), torch.randint(0, models.VOCABULARY, (4, 16))]
    rounded = {}
    for address in addresses:
        w = model.get_submodule(address).weight.detach()
        noise = torch.randn_like(w)
        rounded[address] = {name: w + scale * noise for name, scale in SCALES.items()}
    blocks = {address: address[: len("model.layers.0")] for address in addresses}
    return Material(model, batches, second_moments(model, addresses, batches), rounded, blocks)


@pytest.mark.parametrize("name", BY_SCHEME)
def test_no_error_costs_nothing_and_a_large_one_the_most(material: Material, name: str) -> None:
    before = {k: v.clone() for k, v in material.model.state_dict().items()}
    table = SCORERS[name](material)
    assert list(table) == list(material.rounded)
    for losses in table.values():
        assert list(losses) == list(SCALES)
        assert abs(losses["none"]) < 1e-6
        assert losses["none"] <= losses["small"] < losses["large"]
    assert all(torch.equal(v, before[k]) for k, v in material.model.state_dict().items())


@pytest.mark.parametrize("name", ["PMPQ", "TDMPQ"])
def test_a_part_that_reaches_nothing_has_the_least_score(material: Material, name: str) -> None:
    """With its output projection at zero, a block's attention is worth nothing."""
    dead, out = "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.o_proj"
    with material.changed(out, torch.zeros_like(material.weight(out))):
        scores = SCORERS[name](material)
    assert scores[dead] == pytest.approx(0.0, abs=1e-7)
    assert any(abs(scores[address]) > 1e-4 for address in scores if address not in (dead, out))
    assert priced(material, scores)["model.layers.0.mlp.down_proj"]["none"] == 0.0


def test_first_order_is_linear_in_the_error_and_second_order_quadratic(material: Material) -> None:
    for scorer, power in ((taylor, 2), (second_moment, 4), (gradient_output, 4), (fisher_window, 4)):
        for losses in scorer(material).values():
            assert losses["double"] / losses["small"] == pytest.approx(power, rel=0.02)
    for losses in measured_kl(material).values():
        assert losses["double"] / losses["small"] == pytest.approx(4, rel=0.15)


def test_what_removing_a_weight_costs_is_the_first_order_of_zero(material: Material) -> None:
    """TDMPQ is Taylor where every part is rounded to nothing."""
    nothing = {address: {"zero": torch.zeros_like(material.weight(address).data)} for address in material.rounded}
    zeroed = dataclasses.replace(material, rounded=nothing)
    scores = SCORERS["TDMPQ"](material)
    for address, losses in taylor(zeroed).items():
        assert losses["zero"] == pytest.approx(scores[address], rel=1e-4)


def test_the_whole_second_order_is_the_measured_kl(material: Material) -> None:
    """Summed over parts, with many windows, and no further off than its noise allows."""
    chance = torch.Generator().manual_seed(3)
    many = dataclasses.replace(
        material, batches=[torch.randint(0, models.VOCABULARY, (64, 12), generator=chance) for _ in range(6)]
    )
    found, truth = fisher_window(many), measured_kl(many)
    total = [sum(losses["double"] for losses in table.values()) for table in (found, truth)]
    assert total[0] == pytest.approx(total[1], rel=0.2)
    by_position = fisher_position(many)
    assert all(losses["double"] > 0 for losses in by_position.values())


def test_kl_of_nearly_equal_logits_is_exact() -> None:
    chance = torch.Generator().manual_seed(0)
    logits, noise = torch.randn(50, 300, generator=chance), torch.randn(50, 300, generator=chance)
    for scale in (1e-4, 1e-2, 1.0):
        p, q = logits.double().log_softmax(-1), (logits + scale * noise).double().log_softmax(-1)
        exact = (p.exp() * (p - q)).sum(-1)
        assert torch.allclose(kl(logits, logits + scale * noise).double(), exact, rtol=1e-2, atol=1e-12)
    assert float(kl(logits, logits + 5.0).abs().max()) < 1e-6  # a constant changes no prediction


def test_canonical_correlation_is_blind_to_invertible_maps() -> None:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 6, generator=chance)
    assert canonical_correlation(x, x @ torch.randn(6, 6, generator=chance) + 3.0) == pytest.approx(1.0, abs=1e-6)
    assert canonical_correlation(x, torch.randn(4000, 6, generator=chance)) < 0.05
    half = torch.cat([x[:, :3], torch.randn(4000, 3, generator=chance)], 1)
    assert canonical_correlation(x, half) == pytest.approx(0.5, abs=0.03)


def test_blocks_before_a_change_need_not_run(material: Material) -> None:
    batch, address = material.batches[0], "model.layers.1.mlp.gate_proj"
    outputs = material.outputs(batch)
    with torch.no_grad(), material.changed(address, material.rounded[address]["large"]):
        whole = material.logits(batch)
        with material.from_block_of(address, outputs):
            assert torch.equal(material.logits(batch), whole)
            with material.changed("model.layers.0.mlp.gate_proj", material.weight("model.layers.0.mlp.gate_proj") * 0):
                assert torch.equal(material.logits(batch), whole)  # block 0 really did not run
        assert torch.equal(material.logits(batch), whole)
