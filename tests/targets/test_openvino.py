"""OpenVINO on whet's codes and scales, a linear and a table at a time: what the row `openvino` of the targets says.

Constants hold the codes as they lie in a lighter folder, low bits first; Convert, Subtract and Multiply say what they
stand for, as OpenVINO's own compression writes it. On the identity a MatMul computes the weights themselves.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from whet.checkpoint.codes_whet import pack
from whet.grids import IntegerGrid
from whet.targets import TARGETS

# Importing openvino tells its makers so over the network, unless this package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
openvino = pytest.importorskip("openvino")
ops = openvino.opset13

ROW = TARGETS["openvino"]
# A group of 20 and of 96 too: any that divides will do.
SHAPES = {0: (32, 172), 16: (32, 256), 20: (32, 260), 32: (32, 256), 96: (32, 192), 128: (32, 256)}
GRIDS = [IntegerGrid(bits, group, zero) for bits in ROW.bits for group in SHAPES for zero in ("none", "int")]
PRECISE = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}


def solved(grid: IntegerGrid) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Codes and parameters of random weights."""
    w = torch.randn(SHAPES[grid.group], generator=torch.Generator().manual_seed(0)) * 0.05
    params = grid.fit(w)
    return grid.encode(w, params), params


def constant(codes: torch.Tensor, shape: list[int], bits: int, signed: bool = False):
    """Codes as a constant of their own width; signed, the middle code is 0."""
    values = (codes ^ 2 ** (bits - 1)) if signed else codes
    data = pack(values.reshape(1, -1), bits).numpy().view(np.uint8).flatten()
    kind = getattr(openvino.Type, f"{'i' if signed else 'u'}{bits}")
    # a copy: the tensor only looks at the bytes it is given
    held = openvino.Tensor(kind, openvino.Shape(shape))
    held.data.view(np.uint8).reshape(-1)[:] = data[: held.byte_size]
    return openvino.op.Constant(held)


def weights(grid: IntegerGrid, codes: torch.Tensor, params: dict[str, torch.Tensor], signed: bool, kind):
    """The node that computes the weights, in float32, scales stored as `kind`."""
    rows, columns = codes.shape
    size = grid.group or columns
    shape, few = (
        ([rows, columns // size, size], [rows, columns // size, 1]) if grid.group else ([rows, columns], [rows, 1])
    )
    node = ops.convert(constant(codes, shape, grid.bits, signed), kind)
    if not signed:
        zero = params["zero"] if grid.zero == "int" else torch.full(few, grid.half, dtype=torch.uint8)
        node = ops.subtract(node, ops.convert(constant(zero, few, grid.bits), kind))
    scale = params["scale"].reshape(few).to({"f16": torch.float16, "f32": torch.float32}[kind.get_type_name()])
    node = ops.multiply(node, ops.constant(scale.numpy()))
    if grid.group:
        node = ops.reshape(node, ops.constant(np.array([rows, columns])), False)
    return ops.convert(node, openvino.Type.f32)


def run(node, columns: int | None, x: torch.Tensor, settings: dict) -> tuple[torch.Tensor, set[str]]:
    """What a MatMul by the weights, or a Gather of rows where `columns` is None, gives, and the types of constants."""
    if columns is None:
        given = ops.parameter([-1], np.int64)
        out = ops.gather(node, given, ops.constant(np.int64(0)))
    else:
        given = ops.parameter([-1, columns], np.float32)
        out = ops.matmul(given, node, False, True)
    made = openvino.Core().compile_model(
        openvino.Model([out], [given]), "CPU", {"INFERENCE_NUM_THREADS": 1, **settings}
    )
    operations = made.get_runtime_model().get_ordered_ops()
    kinds = {op.get_output_element_type(0).get_type_name() for op in operations if "Const" in _layer(op)}
    return torch.from_numpy(np.array(made([x.numpy()])[0])), kinds


def _layer(operation) -> str:
    return str(operation.get_rt_info()["layerType"].astype(str))


def same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Equal but for the last bits of a float32, in which processors differ (here they are equal)."""
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= 2e-7 * wanted.abs().max())


# Symmetric codes both ways: signed, and unsigned with the middle code as the zero.
WAYS = [(grid, signed) for grid in GRIDS for signed in ((False, True) if grid.zero == "none" else (False,))]


@pytest.mark.parametrize("scales", ["f16", "f32"])
@pytest.mark.parametrize("grid,signed", WAYS, ids=lambda way: getattr(way, "name", "signed" if way else "unsigned"))
def test_a_linear_and_an_embedding_are_what_the_grid_says(grid, signed, scales):
    """Kept in their own width too: nothing is unpacked when it is loaded."""
    codes, params = solved(grid)
    assert grid.zero == "int" or (params["scale"] < 0).any()
    wanted = grid.decode(codes, params)
    node = weights(grid, codes, params, signed, getattr(openvino.Type, scales))
    kind = f"{'i' if signed else 'u'}{grid.bits}"
    multiplied, kinds = run(node, wanted.shape[1], torch.eye(wanted.shape[1]), PRECISE)
    assert same(multiplied.T, wanted) and kind in kinds
    gathered, kinds = run(node, None, torch.arange(len(wanted)), PRECISE)
    assert same(gathered, wanted) and kind in kinds


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
def test_with_its_own_settings_it_is_near(grid):
    """Inputs are then rounded to 8 bits and, where the processor multiplies it, products are of bfloat16."""
    codes, params = solved(grid)
    wanted = grid.decode(codes, params)
    x = torch.randn(7, wanted.shape[1], generator=torch.Generator().manual_seed(1))
    found, _ = run(weights(grid, codes, params, grid.zero == "none", openvino.Type.f16), wanted.shape[1], x, {})
    assert (found - x @ wanted.T).abs().max() < 0.02 * (x @ wanted.T).abs().max()


@pytest.mark.parametrize("bits", [3, 6])
def test_other_widths_are_unpacked_when_they_are_loaded(bits):
    grid = IntegerGrid(bits, 32)
    codes, params = solved(grid)
    _, kinds = run(weights(grid, codes, params, False, openvino.Type.f32), 256, torch.eye(256), PRECISE)
    assert bits not in ROW.bits and not any(kind.startswith("u") for kind in kinds) and "f32" in kinds
    assert not hasattr(openvino.Type, "u5") and not hasattr(openvino.Type, "u7")
