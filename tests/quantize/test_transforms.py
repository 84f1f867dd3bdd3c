"""Transforms: what they change is the coordinates, so nothing but rounding can lose by them, and AWQ's never does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.grids import parse_scheme
from whet.quantize import Reader, awq, balanced, gptq, loss, nearest, random_hadamard, smooth


def reader(seed: int = 0, scheme: str = "int3-g32", rows: int = 48, columns: int = 64, loud: float = 20.0) -> Reader:
    """Correlated inputs of which a few channels are loud, and random weights."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    x = torch.randn(400, columns, generator=generator) @ (torch.eye(columns) + mix)
    x[:, torch.randperm(columns, generator=generator)[:3]] *= loud
    w = torch.randn(rows, columns, generator=generator)
    return Reader(w, x.t() @ x / len(x), parse_scheme(scheme), x.abs().amax(0))


def same(factors: torch.Tensor) -> torch.Tensor:
    return factors


def test_losses_are_those_of_the_original_coordinates():
    one = reader()
    factors = torch.rand(64) + 0.5
    scaled = one.scaled(factors)
    solution = nearest(scaled.w, scaled.h, one.grid)
    error = one.grid.decode(solution.codes, solution.params) / factors - one.w
    assert scaled.loss() == pytest.approx(((error @ one.h) * error).sum().item(), rel=1e-4)
    basis = random_hadamard(64, 0).float()
    turned = one.rotated(basis)
    solution = nearest(turned.w, turned.h, one.grid)
    error = one.grid.decode(solution.codes, solution.params) @ basis.t() - one.w
    assert turned.loss() == pytest.approx(((error @ one.h) * error).sum().item(), rel=1e-3)


def test_powers_of_two_within_a_group_of_one_factor_change_no_code():
    one = reader()
    factors = torch.tensor([0.5, 4.0]).repeat_interleave(32)
    scaled = one.scaled(factors)
    before, after = (nearest(r.w, r.h, r.grid) for r in (one, scaled))
    assert torch.equal(before.codes, after.codes)
    assert torch.equal(
        one.grid.decode(after.codes, after.params) / factors, one.grid.decode(before.codes, before.params)
    )


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scheme=st.sampled_from(["int2-g16", "int3s-g32", "int4z-g64", "int8s", "nf4-g32", "MXFP4"]),
    loud=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
    several=st.booleans(),
)
def test_awq_is_never_worse_than_nothing(seed, scheme, loud, several):
    readers = [reader(seed, scheme, loud=loud)] + [reader(seed + 1, "int4-g32", rows=200, loud=loud)] * several
    found = awq(readers)
    before, after = loss(readers), loss(readers, found.factors)
    assert after <= before
    assert found.share == pytest.approx(after / before if before else 1.0, rel=1e-4)
    assert torch.isfinite(found.factors).all() and (found.factors > 0).all()


def test_awq_finds_loud_channels():
    one = reader(loud=40.0)
    found = awq([one])
    loud = one.h.diagonal().argsort(descending=True)[:3]
    quiet = one.h.diagonal().argsort()[:3]
    assert found.share < 0.9 and found.factors[loud].min() > found.factors[quiet].max()


def test_awq_keeps_to_factors_that_can_be_folded_in():
    def powers(factors):
        return factors.log2().round().exp2()

    found = awq([reader(loud=40.0)], lambda factors: powers(balanced(factors)))
    assert torch.equal(found.factors, powers(found.factors)) and found.share < 1


def test_smooth_is_equation_four():
    one = reader()
    found = smooth([one], 0.7)
    wanted = one.largest**0.7 / one.w.abs().amax(0) ** 0.3
    ratio = found / wanted
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-5)
    assert found.max() * found.min() == pytest.approx(1, rel=1e-4)


def test_balanced_takes_anything():
    found = balanced(torch.tensor([0.0, 1e-30, 1.0, float("inf"), float("nan"), 1e30]))
    assert torch.isfinite(found).all() and found.min() >= 2**-10 and found.max() <= 2**10
    assert torch.equal(balanced(torch.zeros(3)), torch.ones(3))


def test_judges_tell_the_loss_and_solvers_do_not_see_them():
    one, other = reader(0), reader(1)
    judged = Reader(one.w, one.h, one.grid, one.largest, judge=other.h)
    solution = gptq(one.w, one.h, one.grid)
    error = one.grid.decode(solution.codes, solution.params) - one.w
    assert judged.loss(gptq) == pytest.approx(((error @ other.h) * error).sum().item(), rel=1e-4)


@pytest.mark.parametrize("size", [1, 2, 16, 12, 20, 28, 44, 96, 100, 7, 352])
def test_hadamard_matrices_of_any_size_are_orthogonal(size):
    found = random_hadamard(size, 3)
    assert torch.allclose(found @ found.t(), torch.eye(size, dtype=torch.float64), atol=1e-12)
    assert torch.equal(found, random_hadamard(size, 3))
    assert size <= 2 or not torch.equal(found, random_hadamard(size, 4))
    if size & (size - 1) == 0:
        assert torch.allclose(found.abs(), torch.full_like(found, size**-0.5))
