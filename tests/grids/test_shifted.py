"""FP4 with scales that are a row's over powers of two: allowed scales only, whoever solves; exact as FP8 by moving
exponents; never worse than rounding scales up, as ZeroQuant-FP does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import whet.starter
from covering import matrix
from solvers import ROUNDERS
from whet.checkpoint import Checkpoint
from whet.checkpoint.modeling_whet import decode
from whet.grids import ShiftedGrid, parse_scheme
from whet.quantize import Start, gptq, pull, round_block, second_moment_error
from whet.quantize.descent import descend

quick = settings(max_examples=25, deadline=None, derandomize=True)


def problem(rows: int = 24, columns: int = 192, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator) * 0.05
    x = torch.randn(600, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return w, x.t() @ x / 600


def is_allowed(grid: ShiftedGrid, params: dict[str, torch.Tensor], rows: int, columns: int) -> bool:
    """One number of the stored type a row, four bits a group, none beyond what E4M3 makes up for."""
    return (
        params["scale"].shape == (rows, 1)
        and params["scale"].dtype == grid.scale_dtype
        and params["shift"].shape == (rows, len(grid.groups(columns)))
        and params["shift"].dtype == torch.uint8
        and int(params["shift"].max()) <= 14
    )


@quick
@given(st.integers(1, 9), st.integers(1, 60).map(lambda n: 2 * n), st.integers(-8, 8), st.integers(0, 10**6))
def test_weights_over_their_rows_scale_are_e4m3_numbers(rows, columns, power, seed):
    """The cast from FP4 to FP8 that the constraint is for."""
    grid = parse_scheme("fp4m2-g16")
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator) * torch.logspace(0, -4, columns) * 2.0**power
    params = grid.fit(w)
    assert is_allowed(grid, params, rows, columns)
    values = grid.decode(grid.encode(w, params), params)
    over = values / params["scale"].float() * 64
    assert torch.equal(over.to(torch.float8_e4m3fn).float(), over)


@matrix({"solver": ROUNDERS, "columns": [192, 150]})
def test_every_solver_stays_on_what_is_allowed_and_stored(solver, columns):
    grid, (w, h) = parse_scheme("fp4m2-g32"), problem(columns=columns)
    solution = ROUNDERS[solver](w, h, grid)
    assert is_allowed(grid, solution.params, *w.shape)
    parts, entry = grid.stored_parts(solution.codes, solution.params), grid.table_entry("model")
    values = grid.decode(solution.codes, solution.params)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(decode(parts, entry, dtype), values.to(dtype))


def test_training_a_block_moves_a_rows_scale_and_leaves_the_shifts():
    grid, (w, h) = parse_scheme("fp4m2-g32"), problem()
    x = torch.randn(8, 64, 192, generator=torch.Generator().manual_seed(1))
    solution = gptq(w, h, grid, sweeps=0)
    start = Start(solution, grid, pull(w, grid.decode(solution.codes, solution.params), h))
    trained = round_block({"a": start}, lambda now, i: x[i] @ now["a"].t(), lambda i: x[i] @ w.t(), [64] * 8, steps=40)
    found = trained.solutions["a"]
    assert trained.after < trained.before and is_allowed(grid, found.params, *w.shape)
    assert torch.equal(found.params["shift"], solution.params["shift"])
    assert not torch.equal(found.params["scale"], solution.params["scale"])


def test_descent_harms_no_row_and_moves_scales():
    grid, (w, h) = parse_scheme("fp4m2-g32"), problem(seed=4)
    solution = gptq(w, h, grid, sweeps=0)
    before = solution.params["scale"].clone()
    error = w - grid.decode(solution.codes, solution.params)
    lost = ((error @ h) * error).sum(1)
    gains = descend(w, h, grid, solution)
    error = w - grid.decode(solution.codes, solution.params)
    after = ((error @ h) * error).sum(1)
    assert (after <= lost * (1 + 1e-4)).all() and (lost - after).sum().item() == pytest.approx(sum(gains), rel=0.03)
    assert not torch.equal(solution.params["scale"], before) and is_allowed(grid, solution.params, *w.shape)


def test_a_shift_that_is_off_is_put_right():
    """Given its codes; and a row that gains nothing keeps what it has."""
    grid, (w, h) = parse_scheme("fp4m2-g32"), problem(columns=32)
    params = {k: v[:, 0] for k, v in grid.fit(w).items()}
    codes = grid.encode(w, {k: v[:, None] for k, v in params.items()}).t().float()
    off = params | {"shift": params["shift"] + (torch.arange(24) % 2).byte()}
    gradient = h @ (w.t() - grid.dequantize(codes, off))
    found, gain = grid.refit(codes, gradient, h, off)
    assert torch.equal(found["shift"], params["shift"]) and gain > 0
    assert grid.refit(codes, h @ (w.t() - grid.dequantize(codes, params)), h, params) is None


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_search_loses_less_than_rounding_scales_up(size):
    """Either way of the paper's, on the embedded model; M1 likewise."""
    checkpoint = Checkpoint(whet.starter.path())
    w = checkpoint.read("model.layers.2.mlp.down_proj.weight").float()
    peak = w.view(len(w), -1, size).abs().amax(2) / 6
    row = peak.amax(1, keepdim=True).half().float()
    near, down = ((row / peak).log2().round(), (row / peak).log2().floor())

    def lost(name: str, params: dict[str, torch.Tensor]) -> float:
        grid = parse_scheme(f"{name}-g{size}")
        return (w - grid.decode(grid.encode(w, params), params)).square().sum().item()

    def fitted(name: str) -> float:
        return lost(name, parse_scheme(f"{name}-g{size}").fit(w))

    rounded = [lost("fp4m2", {"scale": row.half(), "shift": shift.clamp(0, 14).byte()}) for shift in (near, down)]
    assert fitted("fp4m2") < 0.9 * min(rounded)
    assert fitted("fp4m1") < 0.95 * lost("fp4m1", {"scale": torch.exp2(peak.log2().ceil())})
    # what the constraints cost, beside scales that are free
    assert fitted("fp4") < fitted("fp4m2") < fitted("fp4m1")


def test_a_row_may_hold_groups_of_very_different_sizes():
    grid = parse_scheme("fp4m2-g16")
    w = torch.randn(6, 96, generator=torch.Generator().manual_seed(3)) * 4.0 ** -torch.arange(6).repeat_interleave(16)
    params = grid.fit(w)
    error = (w - grid.decode(grid.encode(w, params), params)).view(6, 6, 16).square().sum(2)
    assert (error <= 0.03 * w.view(6, 6, 16).square().sum(2)).all()


def test_solving_jointly_is_better_than_apart():
    grid, (w, h) = parse_scheme("fp4m2-g32"), problem(64)
    plain = grid.fit(w, h.diagonal())
    nearest = second_moment_error(w, grid.decode(grid.encode(w, plain), plain), h)
    solution = gptq(w, h, grid)
    assert second_moment_error(w, grid.decode(solution.codes, solution.params), h) < 0.6 * nearest
