"""Integer grids: what is encoded stays put, zero stays zero, the fit beats plain rounding, no group is too odd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covering import matrix
from whet.errors import UsageError
from whet.grids import IntegerGrid, safe_scale_dtype

KINDS = ("none", "int", "real")
SCALES = (torch.float16, torch.bfloat16, torch.float32)
EVERY = [(bits, kind) for bits in range(2, 9) for kind in KINDS]

bits_ = st.integers(2, 8)
kinds_ = st.sampled_from(KINDS)
groups_ = st.sampled_from([0, 1, 3, 8, 16, 32, 40])
quick = settings(max_examples=30, deadline=None, derandomize=True)


def weights(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Heavy-tailed weights: a Gaussian with a few outliers."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator)
    return w * (1 + 5 * (torch.rand(rows, columns, generator=generator) < 0.02))


def positive(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1)) * 4 + 0.01


def loss(grid: IntegerGrid, w: torch.Tensor, params: dict, importance: torch.Tensor | None = None) -> torch.Tensor:
    """Weighted squared error of each row."""
    error = (w - grid.decode(grid.encode(w, params), params)).double().square()
    return (error if importance is None else error * importance).sum(1)


def min_max(grid: IntegerGrid, w: torch.Tensor) -> dict:
    """The textbook parameters: the range of each group, nothing searched."""
    parts = []
    for a, b in grid.groups(w.shape[1]):
        low, high = w[:, a:b].amin(1), w[:, a:b].amax(1)
        if grid.zero == "none":
            parts.append({"scale": w[:, a:b].abs().amax(1) / (grid.half - 1)})
        elif grid.zero == "real":
            parts.append({"scale": (high - low) / grid.top, "offset": low})
        else:
            low, high = low.clamp_max(0), high.clamp_min(0)
            scale = (high - low) / grid.top
            zero = torch.round(-low / torch.where(scale == 0, 1.0, scale)).clamp(0, grid.top)
            parts.append({"scale": scale, "zero": zero.to(torch.uint8)})
    params = {k: torch.stack([p[k] for p in parts], dim=1) for k in parts[0]}
    return {k: v if k == "zero" else v.to(grid.scale_dtype) for k, v in params.items()}


@quick
@given(bits_, kinds_, groups_, st.sampled_from(SCALES), st.integers(1, 5), st.integers(1, 70), st.integers(0, 10**6))
def test_encoding_what_was_decoded_changes_nothing(bits, kind, group, dtype, rows, columns, seed):
    grid = IntegerGrid(bits, group, kind, dtype)
    w = weights(rows, columns, seed)
    params = grid.fit(w)
    count = math.ceil(columns / (group or columns))
    assert all(v.shape == (rows, count) for v in params.values())
    assert params["scale"].dtype == dtype and params.get("offset", params["scale"]).dtype == dtype
    codes = grid.encode(w, params)
    assert codes.dtype == torch.uint8 and int(codes.max()) <= grid.top
    values = grid.decode(codes, params)
    again = grid.decode(grid.encode(values, params), params)
    assert torch.equal(again, values)


@quick
@given(bits_, kinds_, groups_, st.booleans(), st.integers(0, 10**6))
def test_the_fit_is_never_worse_than_min_max_rounding(bits, kind, group, weighted, seed):
    # scales of 32 bits: what is compared is the search, and rounding of scales may favour either
    grid = IntegerGrid(bits, group, kind, torch.float32)
    w = weights(4, 72, seed)
    importance = positive((72,), seed) if weighted else None
    fitted = loss(grid, w, grid.fit(w, importance), importance)
    plain = loss(grid, w, min_max(grid, w), importance)
    assert fitted.sum() <= plain.sum() * (1 + 1e-6) + 1e-10  # what float32 itself loses of weights of about 1


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_importance_moves_the_error_away_from_what_matters(bits, kind):
    grid = IntegerGrid(bits, 32, kind)
    w = weights(16, 64, 3)
    importance = torch.ones(64)
    importance[::8] = 100.0
    fitted, indifferent = grid.fit(w, importance), grid.fit(w)
    assert loss(grid, w, fitted, importance).sum() < loss(grid, w, indifferent, importance).sum()
    # the same importances given row by row are the same question
    by_row = grid.fit(w, importance.expand(16, 64))
    assert all(torch.equal(by_row[k], fitted[k]) for k in fitted)


@matrix({"bits": [2, 3, 4, 8], "kind": KINDS, "size": [32, 128]})
def test_candidates_differ_and_the_best_is_among_them(bits, kind, size):
    w = weights(300, size, 5)
    grid = IntegerGrid(bits, size, kind, torch.float32)
    found = grid.candidates(w, None, keep=4)
    assert all(v.shape == (4, 300) for v in found.values())
    values = [
        grid.decode(grid.encode(w, one), one)
        for one in ({k: v[i][:, None] for k, v in found.items()} for i in range(4))
    ]
    same = torch.stack([torch.isclose(values[i], values[j], rtol=1e-6).all(1) for i in range(4) for j in range(i)])
    assert same.float().mean() < 0.1  # of 2-bit grids there are not always enough
    losses = torch.stack([(w - value).double().square().sum(1) for value in values])
    assert losses.amin(0).sum() < 1.02 * loss(grid, w, grid.fit(w)).sum()


@quick
@given(bits_, kinds_, groups_, st.integers(-10, 10), st.integers(0, 10**6))
def test_doubling_the_weights_doubles_the_values(bits, kind, group, power, seed):
    grid = IntegerGrid(bits, group, kind, torch.float32)
    w = weights(3, 50, seed)
    params, scaled = grid.fit(w), grid.fit(w * 2.0**power)
    assert torch.equal(grid.encode(w, params), grid.encode(w * 2.0**power, scaled))
    assert torch.equal(scaled["scale"], params["scale"] * 2.0**power)


@pytest.mark.parametrize("bits,kind", EVERY)
def test_odd_groups_are_finite_and_close(bits, kind):
    generator = torch.Generator().manual_seed(bits)
    plain = torch.randn(8, 32, generator=generator)
    # what a group of Gaussian weights loses at this width, doubled: no odd group may lose more than that
    steps = 2 ** (bits - 1)
    usual = 3.0 / steps**2
    groups = {
        "zero": torch.zeros(8, 32),
        "constant": torch.full((8, 32), -0.37),
        "positive": plain.abs() + 0.05,
        "negative": -plain.abs() - 0.05,
        "tiny": plain * 1e-8,
        "huge": plain * 1e6,
        "one weight": torch.nn.functional.one_hot(torch.arange(8), 32) * 1.0,
    }
    for name, w in groups.items():
        grid = IntegerGrid(bits, 32, kind)
        grid = IntegerGrid(bits, 32, kind, safe_scale_dtype(w, grid))
        params = grid.fit(w)
        values = grid.decode(grid.encode(w, params), params)
        assert all(torch.isfinite(v).all() for v in params.values()), name
        assert torch.isfinite(values).all(), name
        size = w.square().sum()
        relative = ((w - values).square().sum() / size).item() if size else values.abs().max().item()
        bound = {"zero": 0.0, "constant": 1e-5}.get(name, usual)
        assert relative <= bound, (name, relative)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", ["none", "int"])
def test_these_grids_hold_zero_exactly(bits, kind):
    grid = IntegerGrid(bits, 16, kind)
    w = weights(6, 48, bits)
    w[:, ::5] = 0
    params = grid.fit(w)
    decoded = grid.decode(grid.encode(w, params), params)
    assert (decoded[:, ::5] == 0).all()
    zero = grid.zero_value({k: v[:, :1] for k, v in params.items()})
    assert (grid.dequantize(zero, {k: v[:, :1] for k, v in params.items()}) == 0).all()


def test_a_real_zero_has_no_code_of_zero():
    grid = IntegerGrid(4, 16, "real")
    assert grid.zero_value(grid.fit(weights(2, 16, 0))) is None


def test_the_farther_end_of_a_symmetric_group_is_on_the_code_without_a_mirror_image():
    w = torch.tensor([[-8.0, *range(-7, 8)], [8.0, *range(-7, 8)]])
    grid = IntegerGrid(4, 0, "none")
    params = grid.fit(w)
    assert torch.equal(grid.decode(grid.encode(w, params), params), w)
    assert params["scale"].flatten().tolist() == [1.0, -1.0]


@quick
@given(bits_, kinds_, groups_, st.sampled_from(SCALES), st.integers(1, 40), st.integers(1, 100))
def test_nbytes_is_what_is_stored(bits, kind, group, dtype, rows, columns):
    grid = IntegerGrid(bits, group, kind, dtype)
    w = weights(rows, columns, 0)
    params = min_max(grid, w)
    parts = grid.stored_parts(grid.encode(w, params), params)
    parts.pop("weight_shape")
    assert sum(p.numel() * p.element_size() for p in parts.values()) == grid.nbytes(rows, columns)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_computed_in_the_type_that_is_asked_for(kind):
    grid = IntegerGrid(4, 8, kind)
    w = weights(4, 16, 1)
    params = grid.fit(w)
    codes = grid.encode(w, params)
    index = torch.arange(16) // 8
    for dtype in SCALES:
        stored = {k: v.to(dtype)[:, index] for k, v in params.items()}
        c = codes.to(dtype)
        if kind == "real":
            expected = c * stored["scale"] + stored["offset"]
        else:
            expected = (c - (stored["zero"] if kind == "int" else 8)) * stored["scale"]
        assert torch.equal(grid.decode(codes, params, dtype), expected)


def test_dead_columns_do_not_spoil_the_fit():
    grid = IntegerGrid(4, 16, "int")
    w = weights(4, 32, 5)
    params = grid.fit(w, torch.zeros(32))
    assert all(torch.equal(v, params[k]) for k, v in grid.fit(w).items())


def test_a_grid_that_does_not_exist_is_refused():
    for bits in (1, 9):
        with pytest.raises(UsageError, match="2 to 8"):
            IntegerGrid(bits, 32)
    with pytest.raises(UsageError, match="Group size -1"):
        IntegerGrid(4, -1)


def test_float16_scales_are_kept_only_where_they_hold():
    grid = IntegerGrid(4, 32)
    w = weights(4, 64, 0)
    assert safe_scale_dtype(w, grid) == torch.float16
    assert safe_scale_dtype(w * 1e-7, grid) == torch.float32
    assert safe_scale_dtype(w * 1e7, grid) == torch.float32
    assert safe_scale_dtype(torch.zeros(2, 32), grid) == torch.float16
    assert safe_scale_dtype(w * 1e-7, IntegerGrid(4, 32, scale_dtype=torch.bfloat16)) == torch.bfloat16
