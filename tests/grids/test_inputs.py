"""Inputs rounded as compressed-tensors' own forward rounds them, bit for bit, in every type a model has."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationStatus
from compressed_tensors.quantization.lifecycle.forward import forward_quantize

from covering import matrix
from whet.errors import UsageError
from whet.grids import INPUTS, ROUNDED, parse_scheme

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def inputs(dtype: torch.dtype) -> torch.Tensor:
    """Two rows of seven tokens: one of zeros, one of values halfway between those of FP4, one with a spike."""
    x = torch.randn(2, 7, 128, generator=torch.Generator().manual_seed(1))
    x[0, 0], x[0, 1], x[1, 2, 3] = 0, torch.arange(128) / 16, 400
    return x.to(dtype)


@matrix({"name": INPUTS, "dtype": DTYPES})
def test_inputs_are_rounded_as_compressed_tensors_does(name: str, dtype: torch.dtype) -> None:
    grid, x = INPUTS[name], inputs(dtype)
    linear = torch.nn.Linear(128, 4)
    linear.quantization_status = QuantizationStatus.FROZEN
    scale = grid.scale_of(5.0, dtype) if grid.scale_part else None
    if grid.scale_part is not None:
        setattr(linear, grid.scale_part, scale)
    theirs = forward_quantize(linear, x.clone(), "input", QuantizationArgs(**grid.compressed))
    assert torch.equal(grid.rounded(x, scale), theirs)


@pytest.mark.parametrize("name", INPUTS)
def test_rounding_again_changes_nothing_that_has_one_scale(name: str) -> None:
    grid, x = INPUTS[name], inputs(torch.float32)
    scale = grid.scale_of(5.0, torch.float32) if grid.scale_part else None
    once = grid.rounded(x, scale)
    if grid.per == "tensor":
        assert torch.equal(grid.rounded(once, scale), once)
    assert torch.isfinite(once).all() and not once[0, 0].any()


@pytest.mark.parametrize("preset", ROUNDED)
def test_a_preset_is_weights_and_inputs(preset: str) -> None:
    grid = parse_scheme(preset)
    weights, _, inputs_ = ROUNDED[preset].partition("+")
    assert grid.name == ROUNDED[preset] and parse_scheme(grid.name) == grid
    assert grid.with_inputs(None) == parse_scheme(weights) != grid
    assert grid.inputs is INPUTS[inputs_] and grid.kind == parse_scheme(weights).kind


@pytest.mark.parametrize(
    "scheme", ["int8s+int8", "int4s-g32+int8", "FP8+fp8", "NVFP4+nvfp4", "MXFP4+mxfp4", "int4-g32+int8"]
)
@pytest.mark.parametrize("unpacked", [False, True])
def test_bytes_are_those_that_are_stored(scheme: str, unpacked: bool) -> None:
    grid = parse_scheme(scheme)
    grid = grid.unpacking() if unpacked else grid
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    grid = grid.suited(w)
    params = grid.fit(w)
    parts = grid.stored_parts(grid.encode(w, params), params)
    stored = sum(part.nbytes for name, part in parts.items() if name != "weight_shape")
    assert stored == grid.nbytes(8, 64)


def test_what_has_no_inputs_says_so() -> None:
    with pytest.raises(UsageError, match=r"nf4 has weights alone"):
        parse_scheme("nf4+int8")
    with pytest.raises(UsageError, match=r"'int9' are not known\. Did you mean int8.*one of int8, int8-tensor"):
        parse_scheme("int8s+int9")
