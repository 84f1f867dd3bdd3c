"""ONNX Runtime on whet's codes and scales, a linear and a table at a time: what the row `onnx` of the targets says.

Codes lie in a MatMulNBits as they do in a lighter folder, the low bits first, and padded where the last group is short.
On the identity it computes the weights themselves; how the products of that are added up is not what is asked here.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import models
from whet.anatomy import anatomy
from whet.budget import tables
from whet.checkpoint import Checkpoint, load_model
from whet.checkpoint.codes_whet import pack
from whet.grids import IntegerGrid
from whet.recipe.compress import compress
from whet.targets import TARGETS

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

ROW = TARGETS["onnx"]
WIDEST = 256  # of MatMulNBits
SHAPES = {"whole": (24, 256), "ragged": (24, 172)}
GRIDS = [IntegerGrid(bits, group, zero) for bits in ROW.bits for group in ROW.groups for zero in ("none", "int")]


def packed(codes: torch.Tensor, bits: int) -> np.ndarray:
    """Codes `[rows, columns]` as bytes, each row by itself."""
    words = pack(codes, bits).numpy()
    return words.view(np.uint8).reshape(len(words), -1)[:, : math.ceil(codes.shape[1] * bits / 8)].copy()


def solved(grid: IntegerGrid, shape: tuple[int, int], seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Codes and parameters of random weights."""
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.05
    params = grid.fit(w)
    return grid.encode(w, params), params


def graph(nodes, tensors, given, opset=21):
    """A model of `nodes` over `tensors`, from the input `given` (name, type, shape) to `y`, of floats."""
    helper, kind = onnx.helper, onnx.TensorProto
    held = [t if isinstance(t, kind) else onnx.numpy_helper.from_array(t, name) for name, t in tensors.items()]
    made = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info("y", kind.FLOAT, None)],
        held,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def session(model, written=None):
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if written is not None:
        options.optimized_model_filepath = str(written)
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def matmul(codes: torch.Tensor, params: dict[str, torch.Tensor], bits: int, group: int, level: int = 0):
    """The MatMulNBits of codes and parameters. A scale a row is that of every block of it."""
    rows, columns = codes.shape
    size = group or WIDEST
    count = math.ceil(columns / size)
    whole = torch.zeros(rows, count * size, dtype=torch.uint8)
    whole[:, :columns] = codes
    blocks = {name: value.expand(rows, count) if not group else value for name, value in params.items()}
    tensors = {
        "codes": packed(whole, bits).reshape(rows, count, -1),
        "scale": blocks["scale"].float().contiguous().numpy(),
    }
    if "zero" in blocks:
        tensors["zero"] = packed(blocks["zero"].contiguous(), bits)
    if "offset" in blocks:  # in units of codes, as a float
        tensors["zero"] = (-blocks["offset"].double() / blocks["scale"].double()).float().numpy()
    settings = {"K": columns, "N": rows, "bits": bits, "block_size": size, "accuracy_level": level}
    node = onnx.helper.make_node("MatMulNBits", ["x", *tensors], ["y"], domain="com.microsoft", **settings)
    return graph([node], tensors, ("x", onnx.TensorProto.FLOAT, ["m", columns]))


def weights(model, columns: int) -> torch.Tensor:
    """What a linear's model computes of the identity."""
    (y,) = session(model).run(None, {"x": np.eye(columns, dtype=np.float32)})
    return torch.from_numpy(y.T.copy())


def table(codes: torch.Tensor, params: dict[str, torch.Tensor], bits: int, group: int):
    """The GatherBlockQuantized of an embedding. A scale a row is a block that is as wide as the row at least."""
    columns = codes.shape[1]
    size = group or 2 ** math.ceil(math.log2(max(columns, 16)))
    tensors = {"codes": packed(codes, bits), "scale": params["scale"].float().numpy()}
    if "zero" in params:
        tensors["zero"] = packed(params["zero"], bits)
    inputs = ["codes", "ids", *[name for name in tensors if name != "codes"]]
    settings = {"bits": bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
    node = onnx.helper.make_node("GatherBlockQuantized", inputs, ["y"], domain="com.microsoft", **settings)
    return graph([node], tensors, ("ids", onnx.TensorProto.INT64, ["m"]))


def rows_of(model, count: int) -> torch.Tensor:
    """The first `count` rows of a table's model."""
    return torch.from_numpy(session(model).run(None, {"ids": np.arange(count)})[0])


def same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Equal but for the last bits of a float32, in which processors differ (here they are equal)."""
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= 2e-7 * wanted.abs().max())


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_linear_is_what_the_grid_says(grid, shape):
    codes, params = solved(grid, SHAPES[shape])
    assert grid.zero == "int" or (params["scale"] < 0).any()
    wanted = grid.decode(codes, params)
    assert same(weights(matmul(codes, params, grid.bits, grid.group), wanted.shape[1]), wanted)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_embedding_is_what_the_grid_says(grid, shape):
    codes, params = solved(grid, SHAPES[shape])
    wanted = grid.decode(codes, params)
    assert same(rows_of(table(codes, params, grid.bits, grid.group), len(wanted)), wanted)


@pytest.mark.parametrize("bits", ROW.bits)
@pytest.mark.parametrize("zero", ["none", "int"])
def test_with_inputs_in_8_bits_it_is_near(bits, zero):
    """As it is shipped for processors, accuracy level 4: inputs are rounded too, so only nearly the same."""
    grid = IntegerGrid(bits, 32, zero)
    codes, params = solved(grid, (48, 256))
    x = torch.randn(7, 256, generator=torch.Generator().manual_seed(1))
    (y,) = session(matmul(codes, params, bits, 32, level=4)).run(None, {"x": x.numpy()})
    wanted = x @ grid.decode(codes, params).T
    assert (torch.from_numpy(y) - wanted).abs().max() < 0.02 * wanted.abs().max()


@pytest.mark.parametrize("bits,zero", [(8, "none"), (8, "int"), (4, "none"), (4, "int")])
def test_a_scale_a_row_becomes_its_own_kernel(bits, zero, tmp_path):
    """DequantizeLinear along outputs, then MatMul: the optimizer makes one MatMulNBits of it, nothing is unpacked."""
    grid, kind = IntegerGrid(bits, 0, zero), onnx.TensorProto
    codes, params = solved(grid, (24, 172))
    signed = zero == "none"
    stored = {(8, True): kind.INT8, (8, False): kind.UINT8, (4, True): kind.INT4, (4, False): kind.UINT4}[bits, signed]

    def tensor(name, values):
        data = packed(values.reshape(1, -1), bits).tobytes()
        return onnx.helper.make_tensor(name, stored, values.shape, data, raw=True)

    # two's complement: the middle code is 0
    told = (codes ^ grid.half) if signed else codes
    tensors = {"codes": tensor("codes", told.T.contiguous()), "scale": params["scale"].flatten().float().numpy()}
    if not signed:
        tensors["zero"] = tensor("zero", params["zero"].flatten())
    nodes = [
        onnx.helper.make_node("DequantizeLinear", [*tensors], ["w"], axis=1),
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    ran = session(graph(nodes, tensors, ("x", kind.FLOAT, ["m", 172])), tmp_path / "optimized.onnx")
    x = torch.randn(7, 172, generator=torch.Generator().manual_seed(1))
    wanted = x @ grid.decode(codes, params).T
    assert (torch.from_numpy(ran.run(None, {"x": x.numpy()})[0]) - wanted).abs().max() < 0.02 * wanted.abs().max()
    assert [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node] == ["MatMulNBits"]


@pytest.mark.parametrize("bits", [bits for bits in range(2, 9) if bits not in ROW.bits])
def test_widths_that_the_row_leaves_out_are_refused(bits):
    codes, params = solved(IntegerGrid(bits, 32), (8, 64))
    with pytest.raises(Exception, match="2b, 4b and 8b"):
        weights(matmul(codes, params, bits, 32), 64)


@pytest.mark.parametrize("group", [8, 96, 512])
def test_groups_that_the_row_leaves_out_are_refused(group):
    codes, params = solved(IntegerGrid(4, group), (8, 1024))
    with pytest.raises(Exception, match="block sizes 16, 32, 64, 128, and 256"):
        weights(matmul(codes, params, 4, group), 1024)


def test_a_real_zero_would_be_rounded_again_or_refused():
    grid = IntegerGrid(4, 32, "real")
    codes, params = solved(grid, SHAPES["whole"])
    wanted = grid.decode(codes, params)
    found = weights(matmul(codes, params, 4, 32), wanted.shape[1])
    assert not torch.equal(found, wanted) and (found - wanted).abs().max() < 1e-6
    codes, params = solved(IntegerGrid(8, 32, "real"), SHAPES["whole"])
    with pytest.raises(Exception, match="Only 2b and 4b"):
        weights(matmul(codes, params, 8, 32), SHAPES["whole"][1])


@pytest.mark.parametrize("schemes", [("int4-g32", "int8s"), ("int2s-g64", "int4-g32")])
def test_every_weight_of_a_folder_is_what_the_runtime_computes(schemes, tmp_path):
    """In groups of 64 the last one of the rows of 96 is short."""
    original = models.make(tmp_path / "model")
    scheme, embed = schemes
    compress(original, tmp_path / "out", scheme=scheme, embed=embed, solver="nearest", target="onnx", folder=True)
    stored, values = Checkpoint(tmp_path / "out"), load_model(tmp_path / "out").state_dict()
    parts = anatomy(Checkpoint(original).config, Checkpoint(original).shapes)
    seen = 0
    for linear in (*parts.linears(), *tables(parts)):
        entry, (rows, columns) = stored.whet["linears"][linear.address], linear.shape
        codes = _codes(stored.read(f"{linear.address}.weight_packed"), entry["bits"], columns)
        params = {"scale": stored.read(f"{linear.address}.weight_scale")}
        if entry["zero"] == "int":
            packed_zeros = stored.read(f"{linear.address}.weight_zero_point")
            params["zero"] = _codes(packed_zeros.T.contiguous(), entry["bits"], rows).T.contiguous()
        wanted = values[f"{linear.address}.weight"]
        if linear.address == parts.embedding.address:
            found = rows_of(table(codes, params, entry["bits"], entry["group"]), rows)
        else:
            found = weights(matmul(codes, params, entry["bits"], entry["group"]), columns)
        assert same(found, wanted), linear.address
        seen += 1
    assert seen == 16


def _codes(words: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Codes out of the words a folder stores: the bytes are those of the file, low bits first."""
    stream = words.contiguous().numpy().view(np.uint8)
    shifts = np.arange(0, 8, bits)
    return torch.from_numpy((stream[:, :, None] >> shifts & (2**bits - 1)).reshape(len(words), -1)[:, :columns].copy())
