"""A graph of ONNX as onnxruntime and onnxruntime-genai read it: `model.onnx`, and its numbers in `model.onnx.data`.

Matrices of codes are MatMulNBits (a scale a row is that of every block of it), tables GatherBlockQuantized; attention
is GroupQueryAttention, which turns queries and keys itself and adds to the cache. Numbers of 16 bits are stored so and
become float32 when the runtime folds constants. A tensor goes to the file as soon as it is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from whet.checkpoint.codes_whet import pack
from whet.errors import MachineError
from whet.formats.graphs.graph import Attention
from whet.formats.graphs.weights import Coded

MODEL, DATA = "model.onnx", "model.onnx.data"
FLOAT, INT8 = 1, 4  # accuracy levels of MatMulNBits: what its inputs become
_OPSET, _IR = 21, 10
_MICROSOFT = "com.microsoft"
_WIDEST = 256  # weights of a block of MatMulNBits
_ALIGNMENT = 4096  # so that the runtime may map it
_INLINE = 256  # bytes of a tensor that stays in model.onnx
_KINDS = {torch.float32: 1, torch.uint8: 2, torch.int64: 7, torch.float16: 10, torch.bfloat16: 16}


def onnx_package() -> Any:
    """The package `onnx`. Raises MachineError without it."""
    try:
        import onnx
    except ImportError as error:
        raise MachineError(
            "Writing an .onnx needs the package onnx, which is not installed here ({error}). Install it: pip install "
            "'whet[onnx]'.",
            error=error,
        ) from error
    return onnx


@dataclass(frozen=True)
class _Blocks:
    """A matrix of codes in the graph: its `inputs` after x of MatMulNBits, and attributes."""

    inputs: tuple[str, ...]
    told: dict[str, int]


class OnnxGraph:
    """Written into `folder`. level: of accuracy of MatMulNBits, FLOAT or INT8.

    cached: whether it continues text; else tokens look both ways. What each method does is said in `Graph`.
    """

    def __init__(self, folder: Path, level: int, cached: bool) -> None:
        self.onnx, self.folder, self.level, self.cached = onnx_package(), folder, level, cached
        self.helper = self.onnx.helper
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.outputs: list[Any] = []
        self.inputs: list[Any] = [self._told("input_ids", 7, ["batch_size", "sequence_length"])]
        length = "total_sequence_length" if cached else "sequence_length"
        self.inputs.append(self._told("attention_mask", 7, ["batch_size", length]))
        self.bytes: dict[str, int] = {}
        self.count = 0
        self._stream: BinaryIO = (folder / DATA).open("wb")
        self._embedded: dict[str, str | _Blocks] = {}
        self._ropes: dict[str, tuple[str, str]] = {}
        self._lengths: tuple[str, str] | None = None
        self._mask: str | None = None

    # -- what a model asks for ------------------------------------------------------------------------------------

    def embed(self, matrix: Coded | Tensor, name: str) -> str:
        if isinstance(matrix, Tensor):
            table = self.tensor(f"{name}.weight", matrix)
            self._embedded[name] = self._wide(table, matrix.dtype)
            return self._wide(self.node("Gather", [table, "input_ids"]), matrix.dtype)
        columns, even = matrix.shape[1], _even(matrix)
        size = even or matrix.group or 2 ** math.ceil(math.log2(max(columns, 16)))
        told = {"bits": matrix.bits, "block_size": size}
        codes = self.tensor(f"{name}.codes", _bytes_of(matrix.codes, matrix.bits))
        more = self._scales(_in_blocks(matrix, even) if even else matrix, name)
        if even:
            shape = [matrix.shape[0], columns // size, size * matrix.bits // 8]
            blocks = self.node("Reshape", [codes, self.tensor(f"{name}.blocks", torch.tensor(shape))])
            self._embedded[name] = _Blocks((blocks, *more), self._sizes(matrix, size))
        else:  # the last block is short: MatMulNBits pads it, and GatherBlockQuantized does not
            self._embedded[name] = self._blocks(matrix, f"{name}.head")
        inputs = [codes, "input_ids", *more]
        return self.node("GatherBlockQuantized", inputs, domain=_MICROSOFT, gather_axis=0, quantize_axis=1, **told)

    def linear(self, x: str, matrix: Coded | Tensor | None, name: str, bias: Tensor | None = None) -> str:
        weight: str | _Blocks
        if matrix is None:
            weight = self._embedded[name]
        elif isinstance(matrix, Tensor):
            weight = self._wide(self.tensor(f"{name}.weight", matrix), matrix.dtype)
        else:
            weight = self._blocks(matrix, name)
        if isinstance(weight, _Blocks):
            told = {**weight.told, "accuracy_level": self.level}
            y = self.node("MatMulNBits", [x, *weight.inputs], domain=_MICROSOFT, **told)
        else:
            y = self.node("FusedMatMul", [x, weight], domain=_MICROSOFT, transB=1)
        return y if bias is None else self.node("Add", [y, self.tensor(f"{name}.bias", bias)])

    def rms_norm(self, x: str, weight: Tensor, epsilon: float, heads: int = 0) -> str:
        if heads:
            x = self.node("Reshape", [x, self.numbers([0, 0, heads, -1])])
        inputs = [x, self.tensor("norm", weight)]
        x = self.node("SimplifiedLayerNormalization", inputs, axis=-1, epsilon=epsilon, stash_type=1)
        return self.node("Reshape", [x, self.numbers([0, 0, -1])]) if heads else x

    def layer_norm(self, x: str, weight: Tensor, bias: Tensor, epsilon: float) -> str:
        inputs = [x, self.tensor("norm", weight), self.tensor("norm.bias", bias)]
        return self.node("LayerNormalization", inputs, axis=-1, epsilon=epsilon)

    def add(self, x: str, y: str) -> str:
        return self.node("Add", [x, y])

    def multiply(self, x: str, y: str | float) -> str:
        return self.node("Mul", [x, y if isinstance(y, str) else self.number(y)])

    def activate(self, x: str, kind: str) -> str:
        if kind == "silu":
            return self.node("Mul", [x, self.node("Sigmoid", [x])])
        if kind == "relu":
            return self.node("Relu", [x])
        return self.node("Gelu", [x], approximate="none" if kind == "gelu" else "tanh")

    def softcap(self, x: str, cap: float) -> str:
        return self.multiply(self.node("Tanh", [self.multiply(x, 1 / cap)]), cap)

    def angles(self, name: str, cos: Tensor, sin: Tensor) -> None:
        self._ropes[name] = self.tensor(f"cos.{name}", cos), self.tensor(f"sin.{name}", sin)

    def attend(self, q: str, k: str, v: str, how: Attention) -> str:
        shape: list[str | int] = ["batch_size", how.kv_heads, "past_sequence_length", how.width]
        past = [f"past_key_values.{how.index}.{part}" for part in ("key", "value")]
        present = [f"present.{how.index}.{part}" for part in ("key", "value")]
        self.inputs += [self._told(name, 1, shape) for name in past]
        self.outputs += [
            self._told(name, 1, [shape[0], shape[1], "total_sequence_length", shape[3]]) for name in present
        ]
        cos, sin = self._ropes[how.rope] if how.rope is not None else ("", "")
        told: dict[str, Any] = {"num_heads": how.heads, "kv_num_heads": how.kv_heads, "scale": how.scale}
        told |= {"do_rotary": int(how.rope is not None), "local_window_size": how.window or -1, "softcap": how.softcap}
        y = self._name("GroupQueryAttention")
        inputs = [q, k, v, *past, *self._filled(), cos, sin]
        node = self.helper.make_node("GroupQueryAttention", inputs, [y, *present], y, domain=_MICROSOFT, **told)
        self.nodes.append(node)
        return y

    def attend_both_ways(self, q: str, k: str, v: str, how: Attention) -> str:
        if self._mask is None:
            self._mask = self.node("Cast", ["attention_mask"], to=6)
        inputs = [q, k, v, "", self._mask]
        return self.node("MultiHeadAttention", inputs, domain=_MICROSOFT, num_heads=how.heads, scale=how.scale)

    def shift(self, x: str, table: Tensor, name: str) -> str:
        length = self.node("Gather", [self.node("Shape", ["input_ids"]), self.numbers([1])])
        rows = self.node("Slice", [self.tensor(name, table), self.numbers([0]), length, self.numbers([0])])
        return self.node("Add", [x, rows])

    def first(self, x: str) -> str:
        return self.node("Gather", [x, self.tensor("zero", torch.tensor(0))], axis=1)

    def answer(self, x: str, name: str) -> None:
        self.nodes.append(self.helper.make_node("Identity", [x], [name], name))
        self.outputs.insert(0, self._told(name, 1, None))

    # -- the graph itself -----------------------------------------------------------------------------------------

    def node(self, operation: str, inputs: Sequence[str], domain: str = "", **told: Any) -> str:
        """Add an operation of one output, which is returned."""
        name = self._name(operation)
        self.nodes.append(self.helper.make_node(operation, list(inputs), [name], name, domain=domain, **told))
        return name

    def tensor(self, name: str, value: Tensor) -> str:
        """A constant of the graph, written now; returns its name, which is `name` and a number where it was taken."""
        address = name.rpartition(".")[0]
        name = f"{name}#{self.count}"
        self.count += 1
        raw = value.contiguous().reshape(-1).view(torch.uint8) if value.numel() else value
        data = raw.numpy()
        proto = self.onnx.TensorProto(name=name, data_type=_KINDS[value.dtype], dims=value.shape)
        self.bytes[address] = self.bytes.get(address, 0) + data.nbytes
        if data.nbytes <= _INLINE:
            proto.raw_data = data.tobytes()
        else:
            start = (
                -(-self._stream.tell() // _ALIGNMENT) * _ALIGNMENT
                if data.nbytes >= _ALIGNMENT
                else -(-self._stream.tell() // 64) * 64
            )
            self._stream.write(b"\0" * (start - self._stream.tell()))
            self._stream.write(data.data)
            proto.data_location = self.onnx.TensorProto.EXTERNAL
            for key, said in (("location", DATA), ("offset", start), ("length", data.nbytes)):
                proto.external_data.add(key=key, value=str(said))
        self.tensors.append(proto)
        return name

    def number(self, value: float) -> str:
        """A float32 of its own."""
        return self.tensor("number", torch.tensor(value, dtype=torch.float32))

    def numbers(self, values: Sequence[int]) -> str:
        """A list of whole numbers."""
        return self.tensor("numbers", torch.tensor(list(values)))

    def close(self, name: str) -> Path:
        """Write model.onnx, called `name`, and return it."""
        self._stream.close()
        graph = self.helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.tensors)
        sets = [self.helper.make_opsetid("", _OPSET), self.helper.make_opsetid(_MICROSOFT, 1)]
        model = self.helper.make_model(graph, opset_imports=sets, ir_version=_IR, producer_name="whet")
        file = self.folder / MODEL
        file.write_bytes(model.SerializeToString(deterministic=True))
        return file

    def _name(self, operation: str) -> str:
        return f"{operation}_{len(self.nodes)}"

    def _told(self, name: str, kind: int, shape: Sequence[str | int] | None) -> Any:
        return self.helper.make_tensor_value_info(name, kind, shape)

    def _wide(self, name: str, dtype: torch.dtype) -> str:
        return name if dtype == torch.float32 else self.node("Cast", [name], to=1)

    def _filled(self) -> tuple[str, str]:
        """How many tokens of each row there are, less one, and the most of all; both int32."""
        if self._lengths is None:
            rows = self.node("ReduceSum", ["attention_mask", self.numbers([1])], keepdims=0)
            last = self.node("Cast", [self.node("Sub", [rows, self.numbers([1])])], to=6)
            zeroth = self.tensor("one", torch.tensor(1))
            total = self.node("Gather", [self.node("Shape", ["attention_mask"]), zeroth])
            self._lengths = last, self.node("Cast", [total], to=6)
        return self._lengths

    def _scales(self, matrix: Coded, name: str) -> tuple[str, ...]:
        """Scales in float32, and zeros where there are any."""
        scale = self._wide(self.tensor(f"{name}.scales", matrix.scale), matrix.scale.dtype)
        if matrix.zero is None:
            return (scale,)
        return scale, self.tensor(f"{name}.zeros", _bytes_of(matrix.zero, matrix.bits))

    def _blocks(self, matrix: Coded, name: str) -> _Blocks:
        """Codes of whole blocks, the last one padded."""
        (rows, columns), size = matrix.shape, matrix.group or _WIDEST
        count = math.ceil(columns / size)
        whole = torch.zeros(rows, count * size, dtype=torch.uint8)
        whole[:, :columns] = matrix.codes
        codes = self.tensor(f"{name}.codes", _bytes_of(whole, matrix.bits).reshape(rows, count, -1))
        return _Blocks((codes, *self._scales(_in_blocks(matrix, size), name)), self._sizes(matrix, size))

    def _sizes(self, matrix: Coded, size: int) -> dict[str, int]:
        return {"K": matrix.shape[1], "N": matrix.shape[0], "bits": matrix.bits, "block_size": size}


def _even(matrix: Coded) -> int:
    """The size of blocks that divide the rows, which both operations then read alike; 0 where none does."""
    columns = matrix.shape[1]
    sizes = (matrix.group,) if matrix.group else (256, 128, 64, 32, 16)
    return next((size for size in sizes if columns % size == 0), 0)


def _in_blocks(matrix: Coded, size: int) -> Coded:
    """The same with scales and zeros for every block of `size`, where one goes for the whole row."""
    if matrix.group:
        return matrix
    count = math.ceil(matrix.shape[1] / size)
    spread = [None if part is None else part.expand(-1, count).contiguous() for part in (matrix.scale, matrix.zero)]
    assert spread[0] is not None
    return Coded(matrix.bits, size, matrix.codes, spread[0], spread[1])


def _bytes_of(codes: Tensor, bits: int) -> Tensor:
    """Codes `[rows, columns]` as bytes, low bits first, each row from a new byte on."""
    words = pack(codes.contiguous(), bits)
    count = math.ceil(codes.shape[1] * bits / 8)
    return words.view(torch.uint8).reshape(len(words), -1)[:, :count].contiguous()


def with_level(file: Path, level: int, out: Path) -> Path:
    """The graph in `file` with another accuracy level, over the same numbers, as the file `out` beside it."""
    onnx = onnx_package()
    model = onnx.load(str(file), load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = level
    out.write_bytes(model.SerializeToString(deterministic=True))
    return out
