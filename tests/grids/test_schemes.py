"""Scheme names: every grid has one that leads back to it, and a wrong one is told the nearest."""

from __future__ import annotations

import itertools

import pytest
import torch

from whet.errors import UsageError
from whet.grids import BLOCKS, SMALL_FLOATS, IntegerGrid, ShiftedGrid, SmallFloatGrid, TableGrid, parse_scheme
from whet.grids.schemes import PRESETS
from wording import each


@each("bits, group, kind", itertools.product(range(2, 9), [0, 1, 32, 100, 128], ["none", "int", "real"]))
def test_the_name_of_a_grid_parses_to_it(bits, group, kind):
    grid = IntegerGrid(bits, group, kind, torch.bfloat16)
    assert parse_scheme(grid.name, torch.bfloat16) == grid
    assert parse_scheme(grid.name.upper(), torch.bfloat16).scale_dtype == torch.bfloat16


def test_presets_are_symmetric_as_in_the_field():
    assert parse_scheme("W4A16") == IntegerGrid(4, 128, "none")
    assert parse_scheme(" w8a16 ") == IntegerGrid(8, 0, "none")
    assert {parse_scheme(p).bits for p in PRESETS} == {2, 3, 4, 8}


@each(
    "wrong,near",
    [
        ("W4A61", "W4A16"),
        ("int4g32", "int4-g32"),
        ("it4-g128", "int4-g128"),
        ("int4zz-g64", "int4z-g64"),
        ("fp5", "FP8|NVFP4|MXFP4|nf4|fp4"),
        ("fp4m3", "fp4|fp4m1|fp4m2"),
        ("fp4m2g32", "fp4m2-g32"),
        ("NVFP8", "NVFP4"),
        ("nf5", "nf4"),
        ("int9-g32", "int3-g32|int4-g32|int2-g32|int8-g32"),
    ],
)
def test_a_wrong_name_is_told_the_nearest(wrong, near):
    with pytest.raises(UsageError, match=f"Did you mean ({near})\\?") as raised:
        parse_scheme(wrong)
    assert wrong in str(raised.value) and "2 to 8 bits" in str(raised.value)


@each(
    "wrong",
    ["", "int4-g0", "int4-g-1", "int1-g32", "int04-g32", "four bits", "int4-g32 int8", "nf4-g0", "fp8-row", "fp4-g0"],
)
def test_what_is_no_scheme_is_refused(wrong):
    with pytest.raises(UsageError, match="is not known"):
        parse_scheme(wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_block_type_has_float16_scales_whatever_the_model_has(dtype):
    grid = parse_scheme("q5_1", dtype)
    assert (grid.name, grid.bits, grid.group, grid.zero, grid.scale_dtype) == ("Q5_1", 5, 32, "real", torch.float16)
    assert grid == parse_scheme("int5z-g32", dtype)


@each("name", [*SMALL_FLOATS, "nf4-g32", "nf4-g100", "seq2-g32", "fp4-g32", "fp4m1-g128", "fp4m2-g16"])
def test_the_name_of_a_float_or_table_parses_to_it(name):
    grid = parse_scheme(name.upper(), torch.bfloat16)
    kind = (
        TableGrid if name.startswith(("nf4", "seq2")) else ShiftedGrid if name.startswith("fp4m2") else SmallFloatGrid
    )
    assert type(grid) is kind and grid.name == name and parse_scheme(grid.name) == grid
    stored = {"NVFP4": torch.float8_e4m3fn, "MXFP4": torch.float8_e8m0fnu, "fp4m1": torch.float8_e8m0fnu}
    assert grid.scale_dtype == stored.get(name.partition("-g")[0], torch.bfloat16)
    assert parse_scheme("nf4-g64") == parse_scheme("nf4") and parse_scheme("nf4-g64").name == "nf4"


def test_powers_of_two_in_groups_of_32_are_mxfp4():
    assert parse_scheme("fp4m1-g32") == SMALL_FLOATS["MXFP4"] and parse_scheme("FP4M1-G64").name == "fp4m1"


@each("name", BLOCKS)
def test_every_block_type_has_its_name_in_any_case(name):
    assert parse_scheme(f" {name.lower()} ") == BLOCKS[name] and BLOCKS[name].name == name


@each("wrong,near", [("Q4K", "Q4_K"), ("Q4_KM", "Q4_K_M"), ("q6k", "Q6_K"), ("IQ4XS", "IQ4_XS")])
def test_a_wrong_block_type_is_told_the_nearest(wrong, near):
    with pytest.raises(UsageError, match=f"Did you mean {near}\\?"):
        parse_scheme(wrong)
