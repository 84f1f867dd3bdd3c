"""Ternary types: the best scale there is, whatever the group holds; five codes in a byte come out as they went in."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.checkpoint.codes_whet import codes_of
from whet.checkpoint.modeling_whet import decode
from whet.grids import BLOCKS, TernaryGrid
from whet.grids.packing import pack_digits
from whet.quantize import gptq, nearest, second_moment_error

FIVE, FOUR = BLOCKS["TQ1_0"], BLOCKS["TQ2_0"]
quick = settings(max_examples=40, deadline=None, derandomize=True)


def loss(grid: TernaryGrid, w: torch.Tensor, params: dict[str, torch.Tensor], m: torch.Tensor) -> torch.Tensor:
    return ((w - grid.decode(grid.encode(w, params), params)).double().square() * m).sum(1)


@quick
@given(st.integers(1, 40), st.booleans(), st.booleans(), st.integers(0, 10**6))
def test_no_scale_is_better(columns, weighted, dead, seed):
    """Beside float16 ones over the whole range in steps of a thousandth; half of the columns may not count at all."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(3, columns, generator=generator)
    m = torch.rand(columns, generator=generator).pow(4) if weighted else torch.ones(columns)
    m = m * (torch.rand(columns, generator=generator) < 0.5) if dead else m
    found = loss(FOUR, w, FOUR.fit(w, m), m)
    scales = torch.linspace(0, w.abs().max().item(), 1000).half().repeat_interleave(3)[:, None]
    others = loss(FOUR, w.repeat(1000, 1), {"scale": scales}, m).view(1000, 3).amin(0)
    assert (found <= others + 3e-7 * (w.square() * m).sum(1)).all()  # a float16 is within 2^-12 of the best


@quick
@given(st.integers(1, 9), st.integers(1, 600), st.integers(1, 300), st.integers(0, 10**6))
def test_digits_come_out_as_they_went_in(rows, columns, group, seed):
    codes = torch.randint(0, 3, (rows, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    packed = pack_digits(codes, group)
    whole, left = divmod(columns, group)
    assert packed.shape == (rows, whole * -(-group // 5) + -(-left // 5))
    assert torch.equal(codes_of(packed, {"in_byte": 5, "group": group}, columns), codes)


@pytest.mark.parametrize("grid", [FIVE, FOUR])
@pytest.mark.parametrize("columns", [256, 768, 300, 3])
def test_what_is_stored_is_counted_to_the_byte_ragged_rows_too(grid, columns):
    w = torch.randn(7, columns, generator=torch.Generator().manual_seed(columns))
    params = grid.fit(w)
    codes = grid.encode(w, params)
    assert int(codes.max()) <= 2 and params["scale"].shape == (7, -(-columns // 256))
    parts = grid.stored_parts(codes, params)
    assert sum(v.nbytes for name, v in parts.items() if name != "weight_shape") == grid.nbytes(7, columns)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(decode(parts, grid.table_entry("model"), dtype), grid.decode(codes, params).to(dtype))


def test_both_types_hold_the_same_numbers_in_fewer_or_more_bytes():
    w = torch.randn(5, 512, generator=torch.Generator().manual_seed(0))
    one, two = FIVE.fit(w), FOUR.fit(w)
    assert torch.equal(one["scale"], two["scale"]) and torch.equal(FIVE.encode(w, one), FOUR.encode(w, two))
    assert FIVE != FOUR and (8 * FIVE.nbytes(64, 1024) / 65536, 8 * FOUR.nbytes(64, 1024) / 65536) == (1.6875, 2.0625)


@pytest.mark.parametrize("power", [-8, -3, 3, 8])
def test_twice_the_weights_are_twice_the_scale(power):
    w = torch.randn(5, 512, generator=torch.Generator().manual_seed(1))
    assert torch.equal(FOUR.fit(w * 2.0**power)["scale"], FOUR.fit(w)["scale"] * 2.0**power)
    other = FOUR.fit(-w)
    assert torch.equal(other["scale"], FOUR.fit(w)["scale"])
    assert torch.equal(FOUR.encode(-w, other), 2 - FOUR.encode(w, other))


def test_scales_that_float16_hardly_holds_are_the_best_of_those_it_does():
    w = torch.randn(50, 256, generator=torch.Generator().manual_seed(2)) * 2e-7
    found = loss(FOUR, w, FOUR.fit(w), torch.ones(256))
    for steps in range(12):
        scale = {"scale": torch.full((50, 1), steps * 2.0**-24).half()}
        assert (found <= loss(FOUR, w, scale, torch.ones(256)) * (1 + 1e-6)).all()


def test_a_solver_that_tries_several_scales_begins_with_the_best_and_gains_by_the_others():
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(64, 512, generator=generator)
    found = FOUR.candidates(w[:, :256], None, 6)["scale"]
    assert found.shape == (6, 64) and ((found[1:] == found[0]).float().mean() < 0.05)
    x = torch.randn(2000, 512, generator=generator) @ torch.randn(512, 512, generator=generator)
    h = x.t() @ x / 2000
    lost = {}
    for count in (1, 8):
        solution = gptq(w, h, FOUR, candidates=count, sweeps=0)
        lost[count] = second_moment_error(w, FOUR.decode(solution.codes, solution.params), h)
    assert lost[8] < lost[1]


@pytest.mark.parametrize("solve", [nearest, gptq])
def test_a_mask_is_kept(solve):
    w = torch.randn(6, 512, generator=torch.Generator().manual_seed(4))
    mask = torch.rand(6, 512, generator=torch.Generator().manual_seed(5)) < 0.5
    solution = solve(w, torch.eye(512) + 0.5, FIVE, mask)
    values = FIVE.decode(solution.codes, solution.params)
    assert (values[~mask] == 0).all() and (values[mask] != 0).float().mean() > 0.3


def test_a_group_of_another_size_is_no_type_of_ggmls():
    from whet.formats.gguf import block_type

    assert block_type(FIVE.table_entry("float32")) == "TQ1_0" and block_type(FOUR.table_entry("model")) == "TQ2_0"
    assert block_type(dataclasses.replace(FOUR, group=128).table_entry("model")) is None
