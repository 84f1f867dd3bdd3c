"""Floats of 8 and 4 bits and NF4: stable under repetition, never worse than the usual scales, exact in bytes, at home
with odd groups, and as the field computes them."""

from __future__ import annotations

import math

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from hypothesis import given, settings
from hypothesis import strategies as st

import whet.starter
from covering import matrix
from whet.checkpoint import Checkpoint
from whet.grids import SMALL_FLOATS, ShiftedGrid, SmallFloatGrid, TableGrid, parse_scheme, safe_scale_dtype
from whet.grids.least_squares import pooled
from whet.quantize import holds_zero, nearest

NAMES = tuple(SMALL_FLOATS)
FLOATS = tuple(name for name, grid in SMALL_FLOATS.items() if isinstance(grid, SmallFloatGrid))
SCALES = (torch.float16, torch.bfloat16, torch.float32)
quick = settings(max_examples=25, deadline=None, derandomize=True)
names_ = st.sampled_from(NAMES)
scales_ = st.sampled_from(SCALES)


def weights(rows: int, columns: int, seed: int, tail: float = 5.0) -> torch.Tensor:
    """Gaussian weights, a fiftieth of them `1 + tail` times as large."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator)
    return w * (1 + tail * (torch.rand(rows, columns, generator=generator) < 0.02))


def scales(grid: SmallFloatGrid | TableGrid) -> str:
    """The 8-bit type of its scales."""
    return grid.scales if isinstance(grid, SmallFloatGrid) else ""


def loss(
    grid: SmallFloatGrid | TableGrid, w: torch.Tensor, params: dict, importance: torch.Tensor | None = None
) -> float:
    error = (w - grid.decode(grid.encode(w, params), params)).double().square()
    return (error if importance is None else error * importance).sum().item()


def usual(grid: SmallFloatGrid | TableGrid, w: torch.Tensor) -> dict:
    """The field's parameters: the largest weight of a group on the largest value, nothing searched."""
    rows, columns = w.shape
    size, tall, top = grid.group or columns, grid.rows or rows, grid.book().top
    padded = torch.nn.functional.pad(w.abs(), (0, -columns % size, 0, -rows % tall))
    peak = padded.view(-1, tall, padded.shape[1] // size, size).amax((1, 3)).repeat_interleave(tall, 0)[:rows]
    if grid.name.startswith("fp4m1"):  # ZeroQuant-FP's M1: up to the next power of two
        return {"scale": torch.exp2((peak / top).clamp_min(1e-30).log2().ceil())}
    if scales(grid) == "e8m0":  # the specification's: the exponent of the largest, less that of 6
        return {"scale": torch.exp2(peak.clamp_min(1e-30).log2().floor() - 2)}
    if isinstance(grid, ShiftedGrid):  # its M2: up to the next of the row's largest over a power of two
        row = (peak / top).amax(1, keepdim=True).to(grid.scale_dtype)
        shift = (row / (peak / top).clamp_min(1e-30)).log2().floor().clamp(0, 14)
        return {"scale": row, "shift": shift.to(torch.uint8)}
    if scales(grid) == "e4m3":
        divisor = generate_gparam(-w.abs().max(), w.abs().max())
        scale = (peak / top * divisor).clamp(2.0**-9, 448).to(torch.float8_e4m3fn).float()
        return {"scale": scale, "divisor": divisor.expand_as(scale)}
    return {"scale": (peak / top).to(grid.scale_dtype)}


@quick
@given(names_, scales_, st.integers(1, 9), st.integers(1, 40).map(lambda n: 2 * n), st.integers(0, 10**6))
def test_encoding_what_was_decoded_changes_nothing(name, dtype, rows, columns, seed):
    grid, w = parse_scheme(name, dtype), weights(rows, columns, seed)
    params = grid.fit(w)
    count = math.ceil(columns / (grid.group or columns))
    whole = ("divisor", "scale") if isinstance(grid, ShiftedGrid) else ("divisor",)
    assert all(v.shape == (rows, 1 if name in whole else count) for name, v in params.items())
    assert params["scale"].dtype == (torch.float32 if scales(grid) else dtype)
    codes = grid.encode(w, params)
    assert codes.dtype == torch.uint8 and int(codes.max()) < len(grid.book().values)
    values = grid.decode(codes, params)
    assert torch.equal(grid.decode(grid.encode(values, params), params), values)
    # a column at a time
    group = (columns - 1) // (grid.group or columns)
    own = grid.group_params({k: v.t() for k, v in params.items()}, group)
    assert torch.equal(grid.quantize(w[:, -1], own), codes[:, -1].float())
    assert torch.equal(grid.dequantize(codes[:, -1], own), values[:, -1])


@matrix({"name": NAMES, "kind": ["Gaussian", "heavy tails", "the starter"], "weighted": [False, True]})
def test_the_fit_is_no_worse_than_the_usual_scales(name, kind, weighted):
    if kind == "the starter":
        checkpoint = Checkpoint(whet.starter.path())
        w = checkpoint.read("model.layers.1.mlp.down_proj.weight").float()
    else:
        w = weights(200, 256, 1, tail=0.0 if kind == "Gaussian" else 9.0)
    importance = torch.rand(w.shape[1], generator=torch.Generator().manual_seed(2)) * 4 + 0.01 if weighted else None
    grid = parse_scheme(name, torch.bfloat16)
    fitted, plain = loss(grid, w, grid.fit(w, importance), importance), loss(grid, w, usual(grid, w), importance)
    assert fitted <= plain * (1 + 1e-6)
    if grid.bits == 4 and kind == "Gaussian":  # and there is something to gain
        assert fitted < plain


@pytest.mark.parametrize("name", ["NVFP4", "MXFP4", "FP8", "fp8-tensor", "fp8-block"])
def test_the_fit_is_no_worse_than_compressed_tensors(name):
    w = weights(256, 256, 3)
    grid = parse_scheme(name, torch.float32)
    said = {
        "NVFP4": {"num_bits": 4, "strategy": "tensor_group", "group_size": 16, "scale_dtype": torch.float8_e4m3fn},
        "MXFP4": {"num_bits": 4, "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8},
        "FP8": {"num_bits": 8, "strategy": "channel"},
        "fp8-tensor": {"num_bits": 8, "strategy": "tensor"},
        "fp8-block": {"num_bits": 8, "strategy": "block", "block_structure": [128, 128]},
    }[name]
    arguments = QuantizationArgs(type="float", symmetric=True, **said)
    size, tall = grid.group or 256, grid.rows or 256
    peak = w.abs().view(256 // tall, tall, 256 // size, size).amax((1, 3))
    whole = generate_gparam(-w.abs().max(), w.abs().max()) if name == "NVFP4" else None
    scale, _ = calculate_qparams(-peak, peak, arguments, whole)
    theirs = fake_quantize(w, scale.float(), None, arguments, whole)
    assert loss(grid, w, grid.fit(w)) <= (w - theirs).double().square().sum() * (1 + 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_importance_moves_the_error_away_from_what_matters(name):
    grid, w = parse_scheme(name, torch.float32), weights(130, 256, 3)
    importance = torch.ones(256)
    importance[::8] = 1000.0
    fitted = grid.fit(w, importance)
    assert loss(grid, w, fitted, importance) <= loss(grid, w, grid.fit(w), importance)
    by_row = grid.fit(w, importance.expand(130, 256))
    assert all(torch.allclose(by_row[k], fitted[k], rtol=1e-6) for k in fitted)
    # dead columns are all alike
    assert all(torch.allclose(v, grid.fit(w)[k], rtol=1e-6) for k, v in grid.fit(w, torch.zeros(256)).items())


@pytest.mark.parametrize("name", NAMES)
def test_candidates_differ_and_the_best_is_among_them(name):
    size = SMALL_FLOATS[name].group or 64
    grid, w = parse_scheme(name, torch.float32), weights(256, size, 5)
    shared = grid.group_params({k: v.t() for k, v in grid.shared(w).items()}, 0)
    found = grid.candidates(w, None, 4, shared)
    assert all(v.shape == (4, 256) for v in found.values())
    scale = found["scale"] * torch.exp2(-found["shift"].float()) if "shift" in found else found["scale"]
    assert ((scale[1:] == scale[:-1]).float().mean() < 0.1).all()
    losses = []
    for i in range(4):
        own = {k: v[i][:, None] for k, v in found.items()}
        losses.append(pooled((w - grid.decode(grid.encode(w, own), own)).square().sum(1), grid.rows))
    least, params = torch.stack(losses).amin(0), grid.fit(w)
    chosen = pooled((w - grid.decode(grid.encode(w, params), params)).square().sum(1), grid.rows)
    assert least.sum() <= 1.02 * chosen.sum()
    if name in FLOATS:  # and the first of them
        assert (losses[0] <= least * (1 + 1e-5)).all()


@quick
@given(names_, st.integers(-12, 12), st.integers(0, 10**6))
def test_doubling_the_weights_doubles_the_values(name, power, seed):
    grid, w = parse_scheme(name, torch.float32), weights(3, 64, seed)
    params, scaled = grid.fit(w), grid.fit(w * 2.0**power)
    assert torch.equal(grid.encode(w, params), grid.encode(w * 2.0**power, scaled))
    values = grid.decode(grid.encode(w, params), params)
    assert torch.equal(grid.decode(grid.encode(w * 2.0**power, scaled), scaled), values * 2.0**power)


@matrix({"name": NAMES, "dtype": SCALES})
def test_odd_groups_are_finite_and_close(name, dtype):
    plain = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))
    # on 2 bits the least that four even levels leave of Gaussian weights (Max 1960)
    bound = {2: 0.1188, 4: 3e-2}.get(SMALL_FLOATS[name].bits, 8e-3 if "e5m2" in name else 2e-3)
    groups = {
        "zero": torch.zeros(8, 32),
        "constant": torch.full((8, 32), -0.37),
        "positive": plain.abs() + 0.05,
        "negative": -plain.abs() - 0.05,
        "tiny": plain * 1e-8,
        "very tiny": plain * 1e-25,
        "huge": plain * 1e6,
        "one weight": torch.nn.functional.one_hot(torch.arange(8), 32) * 1.0,
        "a zero row": plain * (torch.arange(8)[:, None] > 0),
    }
    for case, w in groups.items():
        grid = parse_scheme(name, dtype)
        if dtype == torch.float16:
            grid = parse_scheme(name, safe_scale_dtype(w, grid))
        params = grid.fit(w)
        values = grid.decode(grid.encode(w, params), params)
        assert all(torch.isfinite(v).all() for v in params.values()), case
        assert torch.isfinite(values).all(), case
        relative = ((w - values) / w.abs().max().clamp_min(1e-30)).square().sum() / max(
            (w / w.abs().max().clamp_min(1e-30)).square().sum().item(), 1e-30
        )
        allowed = 0.0 if case == "zero" else bound
        if case == "one weight" and not holds_zero(grid):  # 31 zeros on the level nearest to it, whatever its sign
            small, large = min(abs(v) for v in grid.values), max(grid.values)
            allowed = 1.001 * (1 - large**2 / (large**2 + 31 * small**2))  # of the best scale
        if case == "very tiny" and grid.bits == 2:  # squares are 0 in float32, so that nothing tells starts apart
            allowed = loss(grid, w * 1e25, usual(grid, w * 1e25)) / loss(grid, w * 1e25, {"scale": torch.zeros(8, 1)})
        assert relative.item() <= allowed, (case, relative)
        assert (values[w == 0] == 0).all() or case != "a zero row"


@quick
@given(names_, scales_, st.integers(1, 300), st.integers(1, 100).map(lambda n: 2 * n))
def test_nbytes_is_what_is_stored(name, dtype, rows, columns):
    grid, w = parse_scheme(name, dtype), weights(rows, columns, 0)
    params = grid.fit(w)
    parts = grid.stored_parts(grid.encode(w, params), params)
    parts.pop("weight_shape", None)
    assert sum(p.numel() * p.element_size() for p in parts.values()) == grid.nbytes(rows, columns)


@pytest.mark.parametrize("name", NAMES)
def test_zero_is_a_value_or_none_and_rows_that_share_have_one_scale(name):
    grid, w = parse_scheme(name), weights(260, 64, 6)
    w[:, ::5] = 0
    params = grid.fit(w)
    values, own = grid.decode(grid.encode(w, params), params), {k: v[:, :1] for k, v in params.items()}
    if holds_zero(grid):
        assert (values[:, ::5] == 0).all() and (grid.dequantize(grid.zero_value(own), own) == 0).all()
    else:
        assert grid.zero_value(own) is None and (values != 0).all() and 0 not in grid.values
    tall = grid.rows or 260
    assert all(len(part.unique()) == part.shape[1] for part in params["scale"].split(tall)) or tall == 1
    sums = pooled(torch.arange(260.0), grid.rows)
    expected = [sum(range(a, min(a + tall, 260))) for a in range(0, 260, tall) for _ in range(a, min(a + tall, 260))]
    assert sums.tolist() == expected


def test_stored_scales_are_the_nearest_of_their_type():
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0)).mul(20).exp()
    for name, kind in (("NVFP4", torch.float8_e4m3fn), ("MXFP4", torch.float8_e8m0fnu)):
        kept = SMALL_FLOATS[name].stored(x)
        assert torch.equal(kept.to(kind).float(), kept)
    kept = SMALL_FLOATS["MXFP4"].stored(x)
    assert ((kept - x).abs() <= torch.minimum((kept / 2 - x).abs(), (kept * 2 - x).abs())).all()
    tiny = SMALL_FLOATS["FP8"].stored(torch.tensor([1e-12, -1e-12, 0.0]))
    assert tiny.dtype == torch.float16 and tiny[0] > 0 > tiny[1] and tiny[2] == 0


@pytest.mark.parametrize("name", ["FP8", "fp8e5m2"])
def test_float16_scales_of_small_weights_are_raised_where_the_values_have_room(name):
    """Small weights on the largest value need a subnormal scale; some octaves higher they are rounded alike."""
    grid, w = parse_scheme(name, torch.float16), weights(8, 64, 1) * 0.001
    params = grid.fit(w)
    assert params["scale"].median() >= torch.finfo(torch.float16).smallest_normal / 2
    assert loss(grid, w, params) <= loss(grid, w, usual(grid, w))
    assert safe_scale_dtype(w, grid) == torch.float16
    assert safe_scale_dtype(w * 1e-4, grid) == torch.float32


def test_nvfp4_is_exact_in_every_type():
    """Its divisor is a power of two: whoever divides, multiplies or computes in bfloat16 has the same weights."""
    grid, w = parse_scheme("NVFP4"), weights(40, 64, 8) * 0.03
    params = grid.fit(w)
    (divisor,) = params["divisor"].unique().tolist()
    assert math.log2(divisor) == round(math.log2(divisor)) and params["scale"].max() <= 448
    values = grid.decode(grid.encode(w, params), params)
    assert torch.equal(values.to(torch.bfloat16).float(), values)
    assert torch.equal(grid.decode(grid.encode(w, params), params, torch.bfloat16).float(), values)


def test_mxfp4_goes_onto_nvfp4_exactly():
    """A power of two is an E4M3 scale, and what lies below half of the largest value is on the grid an octave lower."""
    octaves = torch.randint(-6, 3, (24, 8), generator=torch.Generator().manual_seed(3)).float()
    w = weights(24, 256, 3) * torch.exp2(octaves).repeat_interleave(32, 1)
    mx = parse_scheme("MXFP4")
    first = nearest(w, None, mx)
    value = mx.decode(first.codes, first.params)
    nv = parse_scheme("NVFP4").suited(value)
    again = nearest(value, None, nv)
    assert torch.equal(nv.decode(again.codes, again.params), value)
