"""Solvers: GPTQ is GPTQ, it beats rounding to nearest, descent harms no row, and odd inputs stay harmless."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covering import matrix
from whet.errors import UsageError
from whet.grids import IntegerGrid, parse_scheme
from whet.quantize import Solution, gptq, nearest, second_moment_error
from whet.quantize.descent import descend
from whet.quantize.solution import LARGE, row_slices, steering_type

KINDS = ("none", "int", "real")
quick = settings(max_examples=15, deadline=None, derandomize=True)


def problem(rows: int = 24, columns: int = 64, seed: int = 0, tokens: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and a second moment with correlated inputs of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator) * 0.1
    x = torch.randn(tokens, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    x = x * torch.logspace(-1, 1, columns)[torch.randperm(columns, generator=generator)]
    return w, x.t() @ x / tokens


def row_losses(w: torch.Tensor, h: torch.Tensor, grid: IntegerGrid, solution: Solution) -> torch.Tensor:
    """tr(r h rᵀ) of each row by itself, in float64."""
    residual = w.double() - grid.decode(solution.codes, solution.params).double()
    return torch.stack([r @ h.double() @ r for r in residual])


def reference_gptq(w: torch.Tensor, h: torch.Tensor, grid: IntegerGrid, params: dict, damp: float) -> torch.Tensor:
    """GPTQ as published, a column at a time on the inverse's Cholesky factor, on given parameters."""
    w, h = w.double(), h.double()
    groups = grid.groups(w.shape[1])
    diagonal = h.diagonal()
    rank = torch.stack([diagonal[a:b].mean() for a, b in groups]).argsort(descending=True, stable=True).tolist()
    order = torch.cat([groups[g][0] + diagonal[slice(*groups[g])].argsort(descending=True, stable=True) for g in rank])
    owner = torch.cat([torch.full((b - a,), g) for g, (a, b) in enumerate(groups)])
    h = h + damp * diagonal.mean() * torch.eye(len(h), dtype=torch.float64)
    upper = torch.linalg.cholesky(torch.linalg.inv(h[order][:, order]), upper=True)
    work = w[:, order].clone()
    codes = torch.empty(w.shape, dtype=torch.uint8)
    for i, column in enumerate(order.tolist()):
        own = {k: v[:, owner[column]] for k, v in params.items()}
        code = grid.quantize(work[:, i].float(), own)
        codes[:, column] = code.to(torch.uint8)
        error = (work[:, i] - grid.dequantize(code, own).double()) / upper[i, i]
        work[:, i + 1 :] -= error[:, None] * upper[i, i + 1 :][None]
    return codes


@matrix({"kind": KINDS, "group,columns": [(16, 64), (0, 64), (24, 64), (0, 300)]})
def test_codes_are_those_of_published_gptq_on_the_same_parameters(kind, group, columns):
    w, h = problem(columns=columns)
    grid = IntegerGrid(4, group, kind, torch.float32)
    solution = gptq(w, h, grid, sweeps=0)
    expected = reference_gptq(w, h, grid, solution.params, damp=0.01)
    # a code may differ only where the value lies on the border of two; then everything after it in the row may
    rows_that_differ = (solution.codes != expected).any(1).float().mean().item()
    assert rows_that_differ <= 0.05


@matrix({"bits": [2, 3, 4, 8], "kind": KINDS, "group": [0, 16, 40]})
def test_gptq_loses_less_than_nearest_and_descent_harms_no_row(bits, kind, group):
    w, h = problem(seed=bits)
    grid = IntegerGrid(bits, group, kind, torch.float32)
    plain, only = nearest(w, h, grid), gptq(w, h, grid, sweeps=0)
    before = row_losses(w, h, grid, only)
    assert before.sum() < row_losses(w, h, grid, plain).sum()
    start = Solution(only.codes.clone(), {k: v.clone() for k, v in only.params.items()})
    gains = descend(w, h, grid, start)
    after = row_losses(w, h, grid, start)
    assert (after <= before * (1 + 1e-5)).all()
    assert before.sum() - after.sum() == pytest.approx(sum(gains), rel=0.02, abs=1e-3 * before.sum().item())
    assert int(start.codes.max()) <= grid.top
    # the whole solver is the two together
    assert row_losses(w, h, grid, gptq(w, h, grid)).sum() == pytest.approx(after.sum().item(), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_descent_repairs_even_random_codes(kind):
    w, h = problem()
    grid = IntegerGrid(3, 16, kind, torch.float32)
    generator = torch.Generator().manual_seed(1)
    solution = Solution(torch.randint(0, 8, w.shape, generator=generator).to(torch.uint8), grid.fit(w))
    before = row_losses(w, h, grid, solution)
    descend(w, h, grid, solution, sweeps=4)
    after = row_losses(w, h, grid, solution)
    assert (after < before * 0.2).all()


@matrix({"kind": ["none", "int"], "solver": [nearest, gptq], "group": [0, 16, 24]})
def test_a_mask_is_kept_exactly(kind, solver, group):
    w, h = problem()
    mask = torch.rand(w.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[3] = False
    grid = IntegerGrid(3, group, kind)
    values = grid.decode(*_parts(solver(w, h, grid, mask)))
    assert (values[~mask] == 0).all()
    assert (values[mask] != 0).float().mean() > 0.4
    # and what is kept answers for what is gone
    if solver is gptq:
        assert second_moment_error(w, values, h) < second_moment_error(w, w * mask, h)


@pytest.mark.parametrize("solver", [nearest, gptq])
def test_a_grid_without_zero_refuses_a_mask(solver):
    w, h = problem(4, 32)
    with pytest.raises(UsageError, match="cannot hold exact zeros"):
        solver(w, h, IntegerGrid(4, 16, "real"), torch.zeros(4, 32, dtype=torch.bool))


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_never_fire_cost_nothing_and_break_nothing(kind):
    w, h = problem()
    dead = torch.zeros(64, dtype=torch.bool)
    dead[5:30:3] = True
    h[dead], h[:, dead] = 0, 0
    grid = IntegerGrid(4, 16, kind)
    solution = gptq(w, h, grid)
    values = grid.decode(*_parts(solution))
    assert torch.isfinite(values).all() and solution.notes == []
    assert second_moment_error(w, values, h) < second_moment_error(w, grid.decode(*_parts(nearest(w, h, grid))), h)
    # a weight whose input is always 0 is still kept near its value
    assert (values - w)[:, dead].abs().max() < w.abs().max() * 0.5


@matrix({"kind": KINDS, "case": ["few tokens", "all zero", "one direction", "not definite", "huge", "tiny"]})
def test_a_second_moment_that_is_hardly_one_still_gives_weights(kind, case):
    w, h = problem()
    if case == "few tokens":
        x = torch.randn(3, 64)
        h = x.t() @ x
    elif case == "all zero":
        h = torch.zeros(64, 64)
    elif case == "one direction":
        h = torch.ones(64, 64)
    elif case == "not definite":
        h = h - 0.05 * h.diagonal().mean() * torch.eye(64)
    elif case == "huge":
        h = h * 1e12
    else:
        h = h * 1e-20
    grid = IntegerGrid(4, 16, kind)
    solution = gptq(w, h, grid)
    values = grid.decode(*_parts(solution))
    assert torch.isfinite(values).all()
    assert (values - w).abs().max() < 3 * w.abs().max()
    assert bool(solution.notes) == (case == "not definite")


def test_a_hopeless_second_moment_is_rounded_to_nearest_and_says_so():
    w, h = problem()
    h = h - 100 * h.diagonal().mean() * torch.ones(64, 64)
    h.diagonal().copy_(torch.ones(64))
    grid = IntegerGrid(4, 16, "int")
    solution = gptq(w, h, grid)
    assert "rounded to nearest" in solution.notes[0]
    assert torch.equal(solution.codes, nearest(w, h, grid).codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_come_back_in_their_stored_type(dtype, kind):
    w, h = problem(8, 48)
    grid = IntegerGrid(4, 16, kind, dtype)
    for solution in (nearest(w, h, grid), gptq(w, h, grid)):
        assert solution.params["scale"].dtype == dtype and solution.params["scale"].shape == (8, 3)
        assert solution.codes.dtype == torch.uint8 and solution.codes.shape == w.shape
        if kind != "none":
            expected = dtype if kind == "real" else torch.uint8
            assert solution.params["zero" if kind == "int" else "offset"].dtype == expected


@quick
@given(st.integers(2, 8), st.sampled_from(KINDS), st.sampled_from([0, 8, 20]), st.integers(0, 1000))
def test_a_row_does_not_see_the_rows_it_is_solved_with(bits, kind, group, seed):
    w, h = problem(18, 40, seed)
    others = torch.cat([w[:8], problem(10, 40, seed + 1)[0] * 7])
    grid = IntegerGrid(bits, group, kind, torch.float32)
    # two sweeps: when to stop is the one thing all rows decide together
    for solver in (nearest, lambda *a: gptq(*a, sweeps=2)):
        one, two = solver(w, h, grid).rows(0, 8), solver(others, h, grid).rows(0, 8)
        assert torch.equal(one.codes, two.codes)
        assert all(torch.equal(one.params[k], two.params[k]) for k in one.params)


@pytest.mark.parametrize("kind", KINDS)
def test_linears_solved_together_are_as_good_as_apart(kind):
    w, h = problem(96, 64)
    grid = IntegerGrid(3, 16, kind, torch.float32)
    together = gptq(w, h, grid)
    apart = sum(row_losses(w[a:b], h, grid, gptq(w[a:b], h, grid)).sum() for a, b in ((0, 48), (48, 64), (64, 96)))
    assert row_losses(w, h, grid, together).sum().item() == pytest.approx(apart.item(), rel=0.01)


@matrix({"kind": KINDS, "group": [0, 32, 200], "mean": [0, 5]})
def test_large_linears_are_as_good_where_bfloat16_steers(kind, group, mean, monkeypatch):
    """Whatever this processor is: the type is what would be chosen on one that is fast at it."""
    w, h = problem(128, 320, tokens=2000)
    h = h + mean**2 * h.diagonal().sqrt()[:, None] * h.diagonal().sqrt()
    grid = IntegerGrid(4, group, kind, torch.float32)
    before, exact = row_losses(w, h, grid, gptq(w, h, grid, sweeps=0)).sum(), gptq(w, h, grid)
    for module in ("gptq", "descent"):
        monkeypatch.setattr(sys.modules[f"whet.quantize.{module}"], "steering_type", lambda _w: torch.bfloat16)
    coarse = gptq(w, h, grid)
    assert not torch.equal(coarse.codes, exact.codes)
    loss = row_losses(w, h, grid, coarse).sum()
    assert loss.item() == pytest.approx(row_losses(w, h, grid, exact).sum().item(), rel=0.03)
    assert loss < before


def test_only_large_linears_are_steered_in_less_than_float32():
    assert steering_type(torch.empty(1, LARGE)) == torch.float32
    assert steering_type(torch.empty(2, LARGE, device="meta")) == torch.float32
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert steering_type(torch.empty(2, LARGE)) == (torch.bfloat16 if fast else torch.float32)


def test_nearest_takes_importances_in_every_form():
    w, h = problem(6, 32)
    grid = IntegerGrid(3, 16, "int")
    by_matrix = nearest(w, h, grid)
    by_diagonal = nearest(w, h.diagonal(), grid)
    by_weight = nearest(w, h.diagonal().expand(6, 32), grid)
    assert torch.equal(by_matrix.codes, by_diagonal.codes) and torch.equal(by_matrix.codes, by_weight.codes)
    assert not torch.equal(nearest(w, None, grid).params["scale"], by_matrix.params["scale"])


def test_the_error_is_a_share_of_the_outputs_energy():
    w, h = problem(4, 32)
    assert second_moment_error(w, w, h) == 0.0
    assert second_moment_error(w, torch.zeros_like(w), h) == pytest.approx(1.0)
    assert second_moment_error(torch.zeros(4, 32), torch.ones(4, 32), h) == 0.0


def _parts(solution: Solution) -> tuple[torch.Tensor, dict]:
    return solution.codes, solution.params


@pytest.mark.parametrize("grid", [IntegerGrid(3, 16, "int"), parse_scheme("Q3_K"), parse_scheme("fp8-block")])
def test_rows_solved_in_slices_are_those_solved_at_once(monkeypatch, grid):
    w, h = problem(rows=300, columns=256)
    whole, alone = gptq(w, h, grid), gptq(w, h, grid, sweeps=0)
    monkeypatch.setattr("whet.quantize.solution.SLICE", 40 * 256)
    slices = row_slices(w, grid.rows)
    assert [s.start for s in slices] == [0, *(s.stop for s in slices[:-1])] and slices[-1].stop == 300
    assert all((s.stop - s.start) % max(1, grid.rows) == 0 for s in slices[:-1]) and len(slices) > 2
    sliced = gptq(w, h, grid, sweeps=0)
    assert (sliced.codes != alone.codes).float().mean() < 0.01  # products of fewer rows may round otherwise
    # descent ends when a sweep gains little, of each slice by itself
    lost = [row_losses(w, h, grid, one).sum().item() for one in (gptq(w, h, grid), whole)]
    assert lost[0] == pytest.approx(lost[1], rel=0.01)


def test_a_grid_that_all_rows_share_is_solved_at_once():
    assert row_slices(torch.empty(300, 1 << 20, device="meta"), 0) == [slice(0, 300)]
    assert row_slices(torch.empty(3, 1 << 24, device="meta"), 1) == [slice(i, i + 1) for i in range(3)]
