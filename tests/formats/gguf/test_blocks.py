"""Block types: what whet packs is, bit for bit, what ggml's own package reads."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

import ggml
from whet.errors import UsageError
from whet.formats.gguf import block_type, blocks
from whet.formats.gguf.blocks import float_rows, row_bytes
from whet.grids import BLOCKS, FLOATS, NestedGrid, TernaryGrid, parse_scheme


def theirs(rows, kind):
    return torch.from_numpy(gguf.dequantize(rows.numpy(), GGMLQuantizationType[kind]).astype(np.float32))


def random_params(grid, rows, columns, generator):
    """Parameters of every value that the type stores, as far as they go."""
    kinds = ("scale", "offset") if grid.zero == "real" else ("scale",)
    params = {k: torch.randn(rows, columns // grid.group, generator=generator).half() for k in kinds}  # negative too
    if isinstance(grid, NestedGrid):
        shape = rows, columns // grid.part
        most = 2**grid.part_bits
        params |= {f"part_{k}": torch.randint(0, most, shape, generator=generator, dtype=torch.uint8) for k in kinds}
    return params


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_code_and_scale_reads_back(kind):
    grid = parse_scheme(kind)
    generator = torch.Generator().manual_seed(len(kind) + grid.bits)
    count = 3 if isinstance(grid, TernaryGrid) else 2**grid.bits
    codes = torch.randint(0, count, (32, 768), generator=generator, dtype=torch.uint8)
    codes[0, :256], codes[1, :256] = 0, count - 1
    params = random_params(grid, 32, 768, generator)
    packed = blocks(codes, params, kind, "a")
    assert packed.shape == (32, row_bytes(kind, 768)) and packed.nbytes == grid.nbytes(32, 768)
    values = grid.decode(codes, params)
    assert torch.equal(theirs(packed, kind), values)
    assert torch.equal(ggml.dequantize(packed, kind), values)


@pytest.mark.parametrize("kind", BLOCKS)
def test_what_a_solver_gives_is_what_ggml_reads(kind):
    grid = parse_scheme(kind)
    w = torch.randn(16, 512, generator=torch.Generator().manual_seed(3))
    params = grid.fit(w)
    codes = grid.encode(w, params)
    packed = blocks(codes, params, kind, "a")
    assert torch.equal(theirs(packed, kind), grid.decode(codes, params))
    assert packed.nbytes == grid.nbytes(16, 512)
    assert block_type(grid.table_entry("float32")) == kind


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_ternary_bytes_are_those_ggml_writes(kind):
    """Every digit in every place of a byte, and the whole block: ggml's own quantizer on weights that are ternary."""
    grid = parse_scheme(kind)
    codes = torch.randint(0, 3, (243, 256), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    every = torch.arange(243)[:, None] // 3 ** torch.arange(5) % 3
    codes[:, :160:32], codes[:, 160:240:16], codes[:, 240::4] = every.byte(), every.byte(), every[:, :4].byte()
    codes[:, 1] = 2  # the largest weight, which ggml takes for the scale
    values = grid.decode(codes, {"scale": torch.full((243, 1), 0.25).half()})
    assert torch.equal(blocks(codes, {"scale": torch.full((243, 1), 0.25)}, kind, "a"), ggml.packed(values, kind))
    theirs = torch.from_numpy(gguf.quantize(values.numpy(), GGMLQuantizationType[kind]))
    assert torch.equal(theirs, ggml.packed(values, kind))


@pytest.mark.parametrize("kind", [*BLOCKS, "F16", "BF16", "F32"])
def test_bytes_of_a_row_are_ggmls(kind):
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    assert row_bytes(kind, 1280) == 1280 // block * size
    if block > 1:
        with pytest.raises(ValueError, match=f"divide by {block}, not 172"):
            row_bytes(kind, 172)


@pytest.mark.parametrize("scheme", ["int4-g32", "int4s-g64", "int3s-g32", "int8s", "int8z-g32"])
def test_what_no_type_holds_has_none(scheme):
    assert block_type(parse_scheme(scheme).table_entry("model")) is None


def test_scales_that_are_no_float16_are_refused_and_not_rounded():
    codes = torch.zeros(1, 32, dtype=torch.uint8)
    exact = blocks(codes, {"scale": torch.tensor([[0.5]], dtype=torch.bfloat16)}, "Q4_0", "a")
    assert torch.equal(theirs(exact, "Q4_0"), torch.full((1, 32), -4.0))
    with pytest.raises(UsageError, match=r"^a: its scales are stored as float32 .*--for llama\.cpp"):
        blocks(codes, {"scale": torch.tensor([[0.1]])}, "Q4_0", "a")


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_a_cast(name):
    w = torch.randn(5, 7)
    assert torch.equal(theirs(float_rows(w, name, "a"), name), w.to(FLOATS[name].dtype).float())


def test_a_float16_that_overflows_is_refused():
    with pytest.raises(UsageError, match=r"exceed what F16 holds\. Use --type bf16"):
        float_rows(torch.tensor([[7e4]]), "F16", "a")
    assert torch.isfinite(theirs(float_rows(torch.tensor([[7e4]]), "BF16", "a"), "BF16")).all()
