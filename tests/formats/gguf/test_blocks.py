"""Block types: what whet packs is, bit for bit, what ggml's own package reads."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from whet.errors import UsageError
from whet.formats import table_entry
from whet.formats.gguf import block_type, blocks
from whet.formats.gguf.blocks import float_rows, row_bytes
from whet.grids import BLOCKS, FLOATS, parse_scheme


def theirs(rows, kind):
    return torch.from_numpy(gguf.dequantize(rows.numpy(), GGMLQuantizationType[kind]).astype(np.float32))


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_code_and_scale_reads_back(kind):
    grid = parse_scheme(kind)
    generator = torch.Generator().manual_seed(len(kind) + grid.bits)
    codes = torch.randint(0, grid.top + 1, (24, 96), generator=generator, dtype=torch.uint8)
    codes[0, :32], codes[1, :32] = 0, grid.top
    params = {"scale": torch.randn(24, 3, generator=generator).half()}  # negative ones too
    if grid.zero == "real":
        params["offset"] = torch.randn(24, 3, generator=generator).half()
    packed = blocks(codes, params, kind, "a")
    assert packed.shape == (24, row_bytes(kind, 96)) and packed.nbytes == grid.nbytes(24, 96)
    assert torch.equal(theirs(packed, kind), grid.decode(codes, params))


@pytest.mark.parametrize("kind", BLOCKS)
def test_what_a_solver_gives_is_what_ggml_reads(kind):
    grid = parse_scheme(kind)
    w = torch.randn(16, 64, generator=torch.Generator().manual_seed(3))
    params = grid.fit(w)
    codes = grid.encode(w, params)
    assert torch.equal(theirs(blocks(codes, params, kind, "a"), kind), grid.decode(codes, params))
    assert block_type(table_entry(grid, "float32")) == kind


@pytest.mark.parametrize("kind", [*BLOCKS, "F16", "BF16", "F32"])
def test_bytes_of_a_row_are_ggmls(kind):
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    assert row_bytes(kind, 320) == 320 // block * size
    if block > 1:
        with pytest.raises(ValueError, match="divide by 32, not 172"):
            row_bytes(kind, 172)


@pytest.mark.parametrize("scheme", ["int4-g32", "int4s-g64", "int3s-g32", "int8s", "int8z-g32"])
def test_what_no_type_holds_has_none(scheme):
    assert block_type(table_entry(parse_scheme(scheme), "model")) is None


def test_scales_that_are_no_float16_are_refused_and_not_rounded():
    codes = torch.zeros(1, 32, dtype=torch.uint8)
    exact = blocks(codes, {"scale": torch.tensor([[0.5]], dtype=torch.bfloat16)}, "Q4_0", "a")
    assert torch.equal(theirs(exact, "Q4_0"), torch.full((1, 32), -4.0))
    with pytest.raises(UsageError, match=r"^a: its scales are stored as float32 .*--for llama\.cpp"):
        blocks(codes, {"scale": torch.tensor([[0.1]])}, "Q4_0", "a")


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_a_cast(name):
    w = torch.randn(5, 7)
    assert torch.equal(theirs(float_rows(w, name, "a"), name), w.to(FLOATS[name]).float())


def test_a_float16_that_overflows_is_refused():
    with pytest.raises(UsageError, match=r"exceed what F16 holds\. Use --type bf16"):
        float_rows(torch.tensor([[7e4]]), "F16", "a")
    assert torch.isfinite(theirs(float_rows(torch.tensor([[7e4]]), "BF16", "a"), "BF16")).all()
