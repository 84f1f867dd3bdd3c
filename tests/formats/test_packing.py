"""Packing: bit for bit what compressed-tensors writes, and decoded as compressed-tensors itself decodes."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from covering import matrix
from whet.checkpoint.codes_whet import unpack
from whet.checkpoint.modeling_whet import decode, parts_of
from whet.errors import GateError
from whet.formats import quantization_config
from whet.grids import SMALL_FLOATS, IntegerGrid, pack, parse_scheme

quick = settings(max_examples=40, deadline=None, derandomize=True)
bits_ = st.integers(2, 8)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
sizes_ = st.tuples(st.integers(1, 9), st.integers(1, 131))


def codes_of(bits: int, shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2**bits, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@quick
@given(bits_, sizes_, st.integers(0, 10**6))
def test_packed_words_are_those_of_compressed_tensors(bits, shape, seed):
    codes = codes_of(bits, shape, seed)
    signed = (codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
    theirs = pack_to_int32(signed, bits)
    mine = pack(codes, bits)
    assert mine.dtype == torch.int32 and torch.equal(mine, theirs)
    assert torch.equal(unpack(mine, bits, shape[1]), codes)
    assert torch.equal(unpack_from_int32(mine, bits, torch.Size(shape)), signed)


@quick
@given(bits_, sizes_, st.integers(0, 10**6))
def test_zero_points_are_packed_along_rows_as_theirs(bits, shape, seed):
    zero = codes_of(bits, shape, seed)
    signed = (zero.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
    grid = IntegerGrid(bits, 1, "int")
    parts = grid.stored_parts(codes_of(bits, shape), {"scale": torch.ones(shape), "zero": zero})
    assert torch.equal(parts["weight_zero_point"], pack_to_int32(signed, bits, packed_dim=0))
    # a single row of words that was read from a file and turned is contiguous, with a stride other than one
    read = load(save({"zero": parts["weight_zero_point"]}))["zero"]
    assert torch.equal(unpack(read.t(), bits, shape[0]).t(), zero)


@matrix({"bits": range(2, 9), "kind": ["none", "int"], "group": [0, 16], "dtype": DTYPES})
def test_weights_are_those_compressed_tensors_computes(bits, kind, group, dtype):
    grid = IntegerGrid(bits, group, kind, torch.float32 if dtype == torch.float32 else dtype)
    w = torch.randn(10, 48, generator=torch.Generator().manual_seed(bits))
    params = grid.fit(w)
    parts = grid.stored_parts(grid.encode(w, params), params)
    arguments = QuantizationArgs(
        num_bits=bits,
        symmetric=kind == "none",
        strategy="group" if group else "channel",
        group_size=group or None,
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    theirs = PackedQuantizationCompressor.decompress(dict(parts), scheme)["weight"]
    mine = decode(parts, grid.table_entry("scale"), dtype)
    assert torch.equal(theirs, mine)
    assert torch.equal(mine, grid.decode(grid.encode(w, params), params, dtype))


@matrix(
    {"bits": range(2, 9), "kind": ["none", "int", "real"], "group,columns": [(0, 45), (32, 96), (32, 45), (100, 45)]}
)
def test_what_is_stored_decodes_to_what_was_solved(bits, kind, group, columns):
    grid = IntegerGrid(bits, group, kind)
    w = torch.randn(11, columns, generator=torch.Generator().manual_seed(columns))
    params = grid.fit(w)
    codes = grid.encode(w, params)
    parts = grid.stored_parts(codes, params)
    for dequantize, dtype in ((False, torch.float32), (False, torch.bfloat16), (True, torch.float16)):
        computed = grid.decode(codes, params, dtype if not dequantize else grid.scale_dtype).to(dtype)
        assert torch.equal(decode(parts, grid.table_entry("scale" if dequantize else "model"), dtype), computed)


@matrix({"name": [*SMALL_FLOATS, "nf4-g40"], "shape": [(11, 96), (200, 250), (1, 2), (130, 128)], "dtype": DTYPES})
def test_a_small_float_is_stored_as_it_was_solved(name, shape, dtype):
    scales = torch.bfloat16 if dtype == torch.bfloat16 else torch.float16
    grid, w = parse_scheme(name, scales), torch.randn(shape, generator=torch.Generator().manual_seed(shape[1]))
    params = grid.fit(w)
    codes = grid.encode(w, params)
    parts, entry = grid.stored_parts(codes, params), grid.table_entry("model")
    assert set(parts) == parts_of(entry) and all(part.is_contiguous() for part in parts.values())
    computed = torch.float32 if entry["decode"] == "float32" else dtype
    assert torch.equal(decode(parts, entry, dtype), grid.decode(codes, params, computed).to(dtype))


@pytest.mark.parametrize("name", ["FP8", "fp8-tensor", "fp8-block", "NVFP4", "MXFP4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_small_float_is_what_compressed_tensors_computes(name, dtype):
    grid, w = parse_scheme(name, dtype), torch.randn(200, 256, generator=torch.Generator().manual_seed(1)) * 0.05
    params = grid.fit(w)
    parts = grid.stored_parts(grid.encode(w, params), params)
    group = quantization_config({"a": grid}, [], "embed", dequantize=False)["config_groups"]["group_0"]
    compressor = BaseCompressor.get_value_from_registry(group["format"])
    scheme = QuantizationScheme.model_validate(group)
    theirs = compressor.decompress(dict(parts), scheme)["weight"]
    assert torch.equal(decode(parts, grid.table_entry("model"), dtype), theirs.to(dtype))
    # and what it writes of these weights on these scales
    state = {"weight": theirs.float(), "weight_scale": parts["weight_scale"].float()}
    if grid.scales:
        state["weight_scale"] = params["scale"]
    if name == "NVFP4":
        state["weight_global_scale"] = parts["weight_global_scale"]
    again = compressor.compress(state, scheme)
    coded = "weight_packed" if grid.scales else "weight"
    assert torch.equal(again[coded].view(torch.uint8), parts[coded].view(torch.uint8))


def test_every_power_of_two_is_read_as_compressed_tensors_reads_it():
    grid = SMALL_FLOATS["MXFP4"]
    scale = torch.exp2(torch.arange(-126, 127, dtype=torch.float32))[:, None]
    codes = torch.full((253, 32), 9, dtype=torch.uint8)
    parts = grid.stored_parts(codes, {"scale": scale})
    assert parts["weight_scale"].flatten().tolist() == list(range(1, 254))
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32)
    )
    theirs = BaseCompressor.get_value_from_registry("mxfp4-pack-quantized").decompress(dict(parts), scheme)["weight"]
    assert torch.equal(theirs.float(), scale.expand(253, 32))
    assert torch.equal(decode(parts, grid.table_entry("model"), torch.float32), scale.expand(253, 32))


def test_parts_of_one_tensor_that_do_not_agree_are_refused():
    codes = torch.zeros(4, 16, dtype=torch.uint8)
    with pytest.raises(GateError, match="rows that share a scale"):
        SMALL_FLOATS["fp8-tensor"].stored_parts(codes, {"scale": torch.arange(4.0)[:, None]})
    with pytest.raises(GateError, match="several divisors"):
        params = {"scale": torch.ones(4, 1), "divisor": torch.tensor([[1.0], [1.0], [2.0], [2.0]])}
        SMALL_FLOATS["NVFP4"].stored_parts(codes, params)
