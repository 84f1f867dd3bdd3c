"""Predicted losses: sampled rows stand for all, and what is predicted is what is measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM

import models
from whet.anatomy import Anatomy, Linear, anatomy
from whet.checkpoint import Checkpoint
from whet.grids import parse_scheme
from whet.quantize.gptq import gptq
from whet.scores import Sensitivity, gains, linear_losses, pivots, rank_share
from whet.scores.prediction import Rows
from whet.walk import GradientWalk, Sample

PLAIN = dict.fromkeys(range(2, 9), 1.0)
SCHEMES = [parse_scheme(name) for name in ("int2-g32", "int3s-g32", "int4-g32", "int4s-g32", "int6s-g32")]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=80),
    count=st.integers(1, 100),
)
def test_rows_that_stand_for_all_keep_what_is_in_proportion(sizes: list[float], count: int) -> None:
    size = torch.tensor(sizes)
    rows = Rows.stand_for(size, count)
    assert rows.index.min() >= 0 and rows.index.max() < len(size)
    assert (rows.weight >= 1 - 1e-4).all()
    if size.sum() > 0:
        total = float((size[rows.index].double() * rows.weight).sum())
        assert total == pytest.approx(float(size.double().sum()), rel=1e-3)
    if count >= len(size):
        assert len(rows.index) == len(size) and bool((rows.weight == 1).all())


def test_sampled_losses_are_near_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = torch.Generator().manual_seed(0)
    w = torch.randn(512, 128, generator=chance) * torch.rand(512, 1, generator=chance).exp()
    x = torch.randn(2000, 128, generator=chance) @ torch.randn(128, 128, generator=chance)
    d, s = pivots(x.t() @ x / len(x)), torch.rand(512, generator=chance).pow(4)
    monkeypatch.setattr("whet.scores.prediction._TRIED", 1 << 20)
    every = linear_losses(w, d, s, SCHEMES, PLAIN)
    monkeypatch.setattr("whet.scores.prediction._TRIED", 128 * 64)
    some = linear_losses(w, d, s, SCHEMES, PLAIN)
    assert some == pytest.approx(every, rel=0.05)
    assert every[0] > every[2] > every[4] > 0


def test_pivots_and_gains_predict_what_gptq_pays() -> None:
    """tr(R H Rᵀ) of GPTQ, with and without descent; the diagonal of H instead of pivots is far off."""
    chance = torch.Generator().manual_seed(1)
    x = torch.randn(4000, 96, generator=chance) @ torch.randn(96, 96, generator=chance)
    h, w, ones = x.t() @ x / len(x), torch.randn(300, 96, generator=chance), torch.ones(300)
    d = pivots(h)
    (gain,) = gains([w], h, d, [ones])
    assert all(0.3 < factor <= 1.1 for factor in gain.values())
    for grid in SCHEMES:
        for sweeps, factors, near in ((0, PLAIN, 0.35), (4, gain, 0.2)):
            solution = gptq(w, h, grid, sweeps=sweeps)
            r = w - grid.decode(solution.codes, solution.params)
            paid = 0.5 * float(((r @ h) * r).sum())
            assert linear_losses(w, d, ones, [grid], factors)[0] == pytest.approx(paid, rel=near)
        assert linear_losses(w, h.diagonal(), ones, [grid], PLAIN)[0] > 1.3 * paid


def test_dead_inputs_have_pivots() -> None:
    h = torch.zeros(40, 40)
    assert torch.isfinite(pivots(h)).all()
    h[3, 3] = 2.0
    assert torch.isfinite(pivots(h)).all() and pivots(h)[3] > 0


def test_rank_share_counts_directions() -> None:
    chance = torch.Generator().manual_seed(3)
    low = torch.randn(60, 3, generator=chance) @ torch.randn(3, 40, generator=chance)
    assert rank_share(low, torch.eye(40)) <= 3 / 40 + 1e-6
    assert rank_share(low.t().contiguous(), torch.eye(60)) <= 3 / 40 + 1e-6
    assert rank_share(torch.eye(40), torch.eye(40)) == pytest.approx(0.9)
    assert rank_share(torch.zeros(4, 5), torch.eye(5)) == 1.0


@pytest.mark.parametrize("family, tied", [("llama", True), ("llama", False), ("mixtral", False), ("qwen3_moe", True)])
def test_predictions_are_what_is_measured(tmp_path, family: str, tied: bool) -> None:
    """One part changed at a time, KL measured on other text: order and size of the predictions.

    Tokens go to the experts they went to before: a change that sends one elsewhere is in no gradient."""
    folder = models.make(tmp_path / "m", family, tied=tied, blocks=2, with_tokenizer=False)
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    chance = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 264, (64, 32), generator=chance)
    visitor = Sensitivity(parts, lambda linear: SCHEMES)
    GradientWalk(checkpoint, parts, "cpu").go([Sample.of_text(tokens[:32], "text/en")], visitor)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    moments = _moments(model, parts, tokens[:32])
    measured, predicted = [], []
    with torch.no_grad():
        _hold_routes(model, tokens[32:])
        reference = model(tokens[32:]).logits.log_softmax(-1)
        for linear in parts.linears():
            parameter = linear.held.of(model.get_parameter(linear.held.parameter).data)
            original = parameter.clone()
            for grid in SCHEMES:
                solution = gptq(original, moments[linear.address], grid)
                parameter.copy_(grid.decode(solution.codes, solution.params))
                now = model(tokens[32:]).logits.log_softmax(-1)
                measured.append(float((reference.exp() * (reference - now)).sum(-1).mean()))
                predicted.append(visitor.parts[linear.address].schemes[grid.name])
            parameter.copy_(original)
    assert spearmanr(measured, predicted)[0] > 0.97
    # A random model attends everywhere alike, so its tokens' errors add up more than those of a trained one, where sums
    # are within a few per cent; at 2 bits it is beyond what a second order can tell.
    fine = [pair for pair in zip(predicted, measured, strict=True) if pair[1] < 1e-3]
    assert len(fine) > 30
    assert 0.6 < sum(told for told, _ in fine) / sum(found for _, found in fine) < 1.25
    assert np.corrcoef(np.log(measured), np.log(predicted))[0, 1] > 0.97


def test_several_walks_are_one_with_all_their_text(tmp_path) -> None:
    """Squared gradients add up over walks; a second walk over the same text changes only their noise."""
    folder = models.make(tmp_path / "m", blocks=2, with_tokenizer=False)
    checkpoint = Checkpoint(folder)
    parts = anatomy(checkpoint.config, checkpoint.shapes)
    tokens = torch.randint(0, 264, (48, 32), generator=torch.Generator().manual_seed(0))
    found = []
    for passes in (1, 3):
        visitor = Sensitivity(parts, lambda linear: SCHEMES, passes=passes)
        walk = GradientWalk(checkpoint, parts, "cpu")
        for text in tokens.chunk(passes):
            walk.go([Sample.of_text(text, "text/en")], visitor)
        assert visitor.text_tokens == 48 * 31 and len(visitor.parts) == 14
        assert sum(map(len, visitor.final)) == pytest.approx(48 * 31 / passes, abs=passes)
        found.append(visitor)
    one, three = found
    for address, part in one.parts.items():
        assert float(three.parts[address].rows.sum()) == pytest.approx(float(part.rows.sum()), rel=0.1)
    for grid in SCHEMES:  # a part by itself has the noise of its few gradients
        ratios = [three.parts[a].schemes[grid.name] / part.schemes[grid.name] for a, part in one.parts.items()]
        assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.25)


def _hold_routes(model, tokens: torch.Tensor) -> None:
    """From now on every router sends `tokens` where it sends them now, with gates as it then finds them."""
    routers = [module for module in model.modules() if type(module).__name__.endswith("TopKRouter")]
    held: dict[int, torch.Tensor] = {}

    def hold(module, _args, out):  # type: ignore[no-untyped-def]
        logits, before, chosen = out
        chosen = held.setdefault(id(module), chosen)
        gates = logits.float().softmax(-1).gather(1, chosen)
        gates = gates / gates.sum(-1, keepdim=True) if normed else gates
        return logits, gates.to(before.dtype), chosen

    normed = getattr(model.config, "norm_topk_prob", True)
    for router in routers:
        router.register_forward_hook(hold)
    model(tokens)
    assert len(held) == len(routers)


def _moments(model, parts: Anatomy, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Second moments of the inputs of every linear, by address; those of experts over the tokens sent to them."""
    found: dict[str, torch.Tensor] = {}

    def keep(address: str, x: torch.Tensor) -> None:
        found[address] = x.reshape(-1, x.shape[-1]).t() @ x.reshape(-1, x.shape[-1]) / len(x.reshape(-1, x.shape[-1]))

    def experts(linears: list[Linear]):  # type: ignore[no-untyped-def]
        def hook(module, args) -> None:  # type: ignore[no-untyped-def]
            for linear in linears:
                expert = linear.held.expert
                x = args[0][(args[1] == expert).any(-1)]
                if linear.role == "expert down":
                    gate, up = (x @ module.gate_up_proj[expert].t()).chunk(2, -1)
                    x = module.act_fn(gate) * up
                keep(linear.address, x)

        return hook

    by_module: dict[str, list[Linear]] = {}
    for linear in parts.linears():
        by_module.setdefault(linear.held.parameter.rpartition(".")[0], []).append(linear)
    handles = [
        model.get_submodule(module).register_forward_pre_hook(
            experts(some) if some[0].held.expert is not None else lambda _m, args, a=some[0].address: keep(a, args[0])
        )
        for module, some in by_module.items()
    ]
    with torch.no_grad():
        model(tokens)
    for handle in handles:
        handle.remove()
    return found
