"""Every function that rounds on every kind of grid: finite, no worse than nearest, masks kept, rows apart."""

from __future__ import annotations

import pytest
import torch

from covering import matrix
from schemes import EVERY, problem, widths
from solvers import ROUNDERS
from whet.errors import UsageError
from whet.grids import SMALL_FLOATS, Grid, parse_scheme
from whet.quantize import Solution, gptq, holds_zero, nearest, second_moment_error
from whet.quantize.descent import descend


def values(grid: Grid, solution: Solution) -> torch.Tensor:
    return grid.decode(solution.codes, solution.params)


@matrix({"scheme,columns": [(scheme, columns) for scheme in EVERY for columns in widths(scheme)], "solver": ROUNDERS})
def test_every_solver_takes_every_grid(scheme, solver, columns):
    grid, (w, h) = parse_scheme(scheme), problem(140, columns)
    solution = ROUNDERS[solver](w, h, grid)
    rounded = values(grid, solution)
    assert torch.isfinite(rounded).all() and solution.codes.shape == w.shape and solution.notes == []
    assert second_moment_error(w, rounded, h) <= second_moment_error(w, values(grid, nearest(w, h, grid)), h)
    # what was solved is on the grid: parameters as stored, codes the nearest of their own values
    if solution.params:
        assert torch.equal(values(grid, Solution(grid.encode(rounded, solution.params), solution.params)), rounded)
    # taken apart and put together again
    parts = [solution.rows(0, 40), solution.rows(40, 140)]
    assert torch.equal(values(grid, Solution.of_rows(parts)), rounded)


@pytest.mark.parametrize("scheme", SMALL_FLOATS)
def test_gptq_and_descent_gain_on_small_floats(scheme):
    grid, (w, h) = parse_scheme(scheme), problem(140, 256, 1)
    plain = second_moment_error(w, values(grid, nearest(w, h, grid)), h)
    only = gptq(w, h, grid, sweeps=0)
    first = second_moment_error(w, values(grid, only), h)
    descend(w, h, grid, only)
    after = second_moment_error(w, values(grid, only), h)
    assert after < first < 0.6 * plain


@matrix({"scheme": SMALL_FLOATS, "solver": ROUNDERS})
def test_a_mask_is_kept_exactly_on_small_floats(scheme, solver):
    grid, (w, h) = parse_scheme(scheme), problem(24, 64)
    mask = torch.rand(w.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[3] = False
    if not holds_zero(grid):
        with pytest.raises(UsageError, match=f"^{grid.name} cannot hold exact zeros"):
            ROUNDERS[solver](w, h, grid, mask)
        return
    rounded = values(grid, ROUNDERS[solver](w, h, grid, mask))
    assert (rounded[~mask] == 0).all() and (rounded[mask] != 0).float().mean() > 0.4


@pytest.mark.parametrize("scheme", ["FP8", "nf4", "MXFP4"])
def test_a_row_does_not_see_its_neighbours_where_nothing_is_shared(scheme):
    grid, (w, h) = parse_scheme(scheme, torch.float32), problem(18, 64)
    others = torch.cat([w[:8], problem(10, 64, 1)[0] * 7])
    for solve in (nearest, lambda *a: gptq(*a, sweeps=2)):
        one, two = solve(w, h, grid).rows(0, 8), solve(others, h, grid).rows(0, 8)
        assert torch.equal(one.codes, two.codes) and torch.equal(one.params["scale"], two.params["scale"])


@matrix({"scheme": SMALL_FLOATS, "case": ["few tokens", "all zero", "huge", "zero weights", "tiny weights"]})
def test_odd_problems_stay_harmless_on_small_floats(scheme, case):
    grid, (w, h) = parse_scheme(scheme, torch.bfloat16), problem(24, 64)
    if case == "few tokens":
        x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
        h = x.t() @ x
    elif case == "all zero":
        h = torch.zeros(64, 64)
    elif case == "huge":
        h = h * 1e12
    else:
        w = w * (0.0 if case == "zero weights" else 1e-12)
    rounded = values(grid, gptq(w, h, grid))
    assert torch.isfinite(rounded).all() and (rounded - w).abs().max() <= 3 * w.abs().max()
