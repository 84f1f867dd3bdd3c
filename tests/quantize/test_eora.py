"""Low-rank repair: what is found is the optimum, whatever the second moment, and no worse than nothing once stored."""

from __future__ import annotations

import pytest
import torch

from covering import some
from whet.grids import parse_scheme
from whet.quantize import eora, gptq


def random(rows, columns, tokens=400, seed=0):
    """An error `[rows, columns]` and the second moment of inputs of very different sizes, of so many tokens."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, columns, generator=generator) * torch.logspace(-2, 1, columns)
    x += x @ torch.randn(columns, columns, generator=generator) * 0.2
    error = torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)
    return error, x.t() @ x / tokens


def loss(error, h, factors=None):
    left = error.double() if factors is None else error.double() - factors[0].double() @ factors[1].double()
    return (left @ h.double()).mul(left).sum().item()


def bound(error, h, rank):
    """Eckart and Young: what no B A of this rank gets below, from a square root of h."""
    values, vectors = torch.linalg.eigh(h.double())
    root = vectors * values.clamp(min=0).sqrt()
    return torch.linalg.svdvals(error.double() @ root)[rank:].square().sum().item()


SHAPES = [(24, 40), (40, 24), (32, 32), (1, 8), (8, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tokens", [400, 6], ids=["regular", "singular"])
def test_it_is_the_optimum_and_falls_with_every_rank(shape, tokens):
    error, h = random(*shape, tokens)
    before, last = loss(error, h), float("inf")
    for rank in range(1, min(shape) + 1):
        b, a = eora(error, h, rank, torch.float64)
        assert b.shape == (shape[0], rank) and a.shape == (rank, shape[1])
        now = loss(error, h, (b, a))
        assert now == pytest.approx(bound(error, h, rank), rel=1e-4, abs=1e-6 * before)
        assert now <= last + 1e-6 * before and now < before  # a float32 moment is off by as much
        last = now
    assert last < 1e-6 * before


@pytest.mark.parametrize("shape", some([(12, 20), (20, 12)], 2), ids=str)
def test_gradient_descent_from_anywhere_ends_no_lower(shape):
    error, h = random(*shape)
    error, h = error.double(), h.double()
    mine = loss(error, h, eora(error, h, 3, torch.float64))
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        b = torch.randn(shape[0], 3, generator=generator, dtype=torch.float64).mul_(0.3).requires_grad_()
        a = torch.randn(3, shape[1], generator=generator, dtype=torch.float64).mul_(0.3).requires_grad_()
        optimizer = torch.optim.Adam([a, b], lr=0.02)
        for step in range(3000):
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 3000)
            optimizer.zero_grad()
            left = error - b @ a
            (left @ h).mul(left).sum().backward()
            optimizer.step()
        theirs = loss(error, h, (b.detach(), a.detach()))
        assert mine <= theirs * (1 + 1e-6) and theirs < 1.05 * mine  # they came near, so they were no straw men


def test_without_a_second_moment_all_directions_are_alike():
    error, _ = random(24, 40)
    b, a = eora(error, None, 4, torch.float64)
    assert loss(error, torch.eye(40), (b, a)) == pytest.approx(bound(error, torch.eye(40), 4), rel=1e-6)
    same = eora(error, torch.eye(40), 4, torch.float64)
    torch.testing.assert_close(same[0] @ same[1], b @ a, rtol=1e-4, atol=1e-6)


def test_directions_that_no_input_has_are_repaired_with_what_rank_is_left():
    error, _ = random(24, 40)
    h = torch.zeros(40, 40)
    h[:3, :3] = torch.eye(3)
    b, a = eora(error, h, 8, torch.float64)
    left = error.double() - b @ a
    assert loss(error, h, (b, a)) < 1e-9 * loss(error, h)
    rest = torch.linalg.svdvals(left)
    assert (rest > 1e-6).sum() == 24 - 8  # every rank took something away


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_sixteen_bits_cost_next_to_nothing(dtype, size):
    """Rounding both factors costs so little that fitting one to the other's rounding would win nothing."""
    error, h = random(24, 40)
    error *= size
    for rank in (1, 4, 16):
        b, a = eora(error, h, rank, dtype)
        assert b.dtype == a.dtype == dtype
        stored, best = loss(error, h, (b, a)), bound(error, h, rank)
        assert stored < best + 1e-3 * loss(error, h)
        b, a = b.double(), a.double()
        refit = (error.double() @ h.double() @ a.t()) @ torch.linalg.inv(a @ h.double() @ a.t())
        assert stored - loss(error, h, (refit, a)) < 1e-3 * loss(error, h)


def test_what_is_stored_is_never_worse_than_nothing():
    error, h = random(24, 40)
    for size in (1e-12, 1e-20, 1e-30):  # below what float16 holds
        b, a = eora(error * size, h, 4, torch.float16)
        assert loss(error * size, h, (b, a)) <= loss(error * size, h)
    for nothing in (torch.zeros(24, 40), torch.zeros(40, 24)):
        for moment in (None, torch.eye(nothing.shape[1])):
            b, a = eora(nothing, moment, 4, torch.bfloat16)
            assert not b.any() and not a.any()
    b, a = eora(error, torch.zeros(40, 40), 4, torch.bfloat16)
    assert torch.isfinite(b).all() and torch.isfinite(a).all()


def test_both_factors_have_numbers_of_one_size():
    """So that 16 bits hold them: the largest of a column of B is that of its row of A."""
    error, h = random(24, 40)
    b, a = eora(error * 1e-5, h, 6, torch.float64)
    torch.testing.assert_close(b.abs().amax(0), a.abs().amax(1))


@pytest.mark.parametrize("scheme", ["int2-g16", "int3s-g16", "nf4-g16"])
def test_what_gptq_left_is_repaired(scheme):
    generator = torch.Generator().manual_seed(1)
    _, h = random(32, 48)
    w = torch.randn(32, 48, generator=generator) * 0.05
    grid = parse_scheme(scheme, torch.float16)
    solution = gptq(w, h, grid)
    error = w - grid.decode(solution.codes, solution.params)
    lost = [loss(error, h, eora(error, h, rank, torch.float16)) for rank in (1, 4, 8)]
    assert loss(error, h) > lost[0] > lost[1] > lost[2]
