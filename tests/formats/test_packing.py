"""Packing: bit for bit what compressed-tensors writes, and decoded as compressed-tensors itself decodes."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.checkpoint.modeling_whet import decode, unpack
from whet.formats import pack, stored_parts, table_entry
from whet.grids import IntegerGrid

quick = settings(max_examples=40, deadline=None, derandomize=True)
bits_ = st.integers(2, 8)
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
    parts = stored_parts(codes_of(bits, shape), {"scale": torch.ones(shape), "zero": zero}, grid)
    assert torch.equal(parts["weight_zero_point"], pack_to_int32(signed, bits, packed_dim=0))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", ["none", "int"])
@pytest.mark.parametrize("group", [0, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_those_compressed_tensors_computes(bits, kind, group, dtype):
    grid = IntegerGrid(bits, group, kind, torch.float32 if dtype == torch.float32 else dtype)
    w = torch.randn(10, 48, generator=torch.Generator().manual_seed(bits))
    params = grid.fit(w)
    parts = stored_parts(grid.encode(w, params), params, grid)
    arguments = QuantizationArgs(
        num_bits=bits,
        symmetric=kind == "none",
        strategy="group" if group else "channel",
        group_size=group or None,
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    theirs = PackedQuantizationCompressor.decompress(dict(parts), scheme)["weight"]
    mine = decode(parts, table_entry(grid, "scale"), dtype)
    assert torch.equal(theirs, mine)
    assert torch.equal(mine, grid.decode(grid.encode(w, params), params, dtype))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", ["none", "int", "real"])
@pytest.mark.parametrize("group,columns", [(0, 45), (32, 96), (32, 45), (100, 45)])
def test_what_is_stored_decodes_to_what_was_solved(bits, kind, group, columns):
    grid = IntegerGrid(bits, group, kind)
    w = torch.randn(11, columns, generator=torch.Generator().manual_seed(columns))
    params = grid.fit(w)
    codes = grid.encode(w, params)
    parts = stored_parts(codes, params, grid)
    for dequantize, dtype in ((False, torch.float32), (False, torch.bfloat16), (True, torch.float16)):
        computed = grid.decode(codes, params, dtype if not dequantize else grid.scale_dtype).to(dtype)
        assert torch.equal(decode(parts, table_entry(grid, "scale" if dequantize else "model"), dtype), computed)
