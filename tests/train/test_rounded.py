"""Matrices that are trained as what they are rounded to: the value is the stored one, the gradient the textbook's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from schemes import CODED, problem, widths
from whet.checkpoint.modeling_whet import decode
from whet.grids import parse_scheme
from whet.quantize import nearest
from whet.train.rounded import Installed, Place, Rounded


def rounded(scheme, columns=None, mask=None, **how):
    grid = parse_scheme(scheme).coded
    w, _ = problem(24, columns or widths(scheme)[-1])
    solution = nearest(w if mask is None else w * mask, None, grid, *([] if mask is None else [mask]))
    return Rounded(grid, solution.codes, solution.params, mask=mask, **how), solution


@pytest.mark.parametrize("scheme", CODED)
@pytest.mark.parametrize("coupled", [True, False])
def test_the_weight_is_what_is_stored_at_the_start_and_after_steps(scheme, coupled):
    one, solution = rounded(scheme, coupled=coupled)
    codes, params = one.rounded()
    assert torch.equal(codes, solution.codes)
    assert all(torch.equal(params[k], v) for k, v in solution.params.items())
    optimizer = torch.optim.Adam(one.parameters(), lr=0.2)
    target = torch.randn(24, one.columns, generator=torch.Generator().manual_seed(1)) * 0.1
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        losses.append((one.weight() - target).square().sum())
        losses[-1].backward()
        optimizer.step()
    made, (codes, params) = one.weight(), one.rounded()
    assert losses[-1] < losses[0] and not torch.equal(codes, solution.codes)
    parts = one.grid.stored_parts(codes, params)
    assert torch.equal(made, decode(parts, one.grid.table_entry("model"), torch.float32))


@pytest.mark.parametrize("scheme,coupled", [("int3s-g16", False), ("int3z-g16", False), ("int2-g16", True)])
def test_gradients_are_those_of_the_formula(scheme, coupled):
    one, _ = rounded(scheme, 64, coupled=coupled)
    with torch.no_grad():
        one.latent += 1.5 * torch.randn(one.latent.shape, generator=torch.Generator().manual_seed(2))
    g = torch.randn(24, 64, generator=torch.Generator().manual_seed(3))
    (one.weight() * g).sum().backward()
    scale = one.params["scale"].double()[..., None]
    offset = one.params.get("offset", torch.zeros(24, 4)).double()[..., None]
    w = one.latent.detach().double().unflatten(1, (4, 16)) * one.gap.double()
    value = one.weight().detach().double().unflatten(1, (4, 16))
    low, high = (end.double() for end in one.start.ends())
    inside = (w >= low - one.gap / 2) & (w <= high + one.gap / 2)
    g = g.double().unflatten(1, (4, 16))
    assert inside.double().mean() < 0.99
    of_scale = (value - offset) / scale if coupled else torch.where(inside, value - w, value - offset) / scale
    wanted = (g * of_scale).sum(-1) * scale[..., 0]  # a factor of the scale is what is trained
    assert torch.allclose(one.factors["scale"].grad.double(), wanted, rtol=1e-3, atol=1e-4)
    assert torch.allclose(one.latent.grad.double(), (g * inside * one.gap).flatten(1), rtol=1e-4, atol=1e-6)
    if "offset" in one.factors:
        shift = (g * ~inside).sum(-1) * offset[..., 0]
        assert torch.allclose(one.factors["offset"].grad.double(), shift, rtol=1e-3, atol=1e-4)


def test_masks_stay_masked_and_frozen_codes_stay():
    mask = torch.rand(24, 64, generator=torch.Generator().manual_seed(0)) > 0.5
    masked, _ = rounded("int3-g16", 64, mask=mask)
    frozen, solution = rounded("int3-g16", 64, frozen=True)
    for one in (masked, frozen):
        with torch.no_grad():
            for parameter in one.parameters():
                parameter += parameter.requires_grad * 0.3
        one.weight().square().sum().backward()
    assert not masked.weight()[~mask].any() and masked.weight()[mask].any()
    assert torch.equal(frozen.rounded()[0], solution.codes) and frozen.latent.grad is None
    assert (frozen.factors["scale"].grad != 0).any()


def test_several_in_one_parameter_and_a_tied_head_are_put_in_and_taken_out():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(24, 64), nn.Linear(64, 24, bias=False)
            self.fused = nn.Linear(24, 64, bias=False)  # held the other way round: [64, 24] of a [24, 64]
            self.head.weight = self.embedding.weight

        def forward(self, ids):
            return self.fused(self.head(self.embedding(ids)))

    model, ids = Two(), torch.arange(6)[None]
    table, _ = rounded("int4s-g16", 64)
    part, _ = rounded("int2s-g16", 64)
    places = {"table": Place("embedding.weight"), "part": Place("fused.weight", (0, 24), None, transposed=True)}
    installed = Installed(model, {"table": table, "part": part}, places)
    before = model(ids)
    before.sum().backward()
    assert {name.split(".")[-1] for name, p in model.named_parameters() if p.grad is not None} == {"latent", "scale"}
    assert model.head.weight is not None and table.latent.grad.abs().sum() > 0 and part.latent.grad.abs().sum() > 0
    installed.taken_out()
    assert torch.equal(model(ids), before) and model.head.weight is model.embedding.weight
    assert [name for name, _ in model.named_parameters()] == ["embedding.weight", "fused.weight"]
