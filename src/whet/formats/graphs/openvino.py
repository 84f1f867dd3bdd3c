"""A graph of OpenVINO: `openvino_model.xml`, and its numbers in `openvino_model.bin`.

Codes are constants of 4 or 8 bits with Convert, Subtract and Multiply behind them, as OpenVINO's own compression writes
them, so they stay packed when it is loaded. The cache is state: each block reads what it kept, in the order of
`beam_idx`, adds the new tokens and keeps that. Inputs are those of other exporters of such graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whet.checkpoint.codes_whet import pack
from whet.engines.openvino import FLOAT_MARK, runtime
from whet.formats.graphs.graph import Attention
from whet.formats.graphs.weights import Coded

MODEL = "openvino_model.xml"
_NEVER = -1e30  # a score of what is not looked at; minus infinity would make a row of these not a number


class OpenVinoGraph:
    """Written into `folder` when it is closed: until then constants are in memory. cached: whether it continues text;
    else tokens look both ways. What each method does is said in `Graph`."""

    def __init__(self, folder: Path, inputs: str, cached: bool) -> None:
        self.native = runtime()
        self.ops = self.native.opset13
        self.folder, self.mode, self.cached = folder, inputs, cached
        self.bytes: dict[str, int] = {}
        names = ["input_ids", "attention_mask", *(["position_ids"] if cached else [])]
        self._inputs = {name: self._input(name, [-1, -1], np.int64) for name in names}
        if cached:
            self._inputs["beam_idx"] = self._input("beam_idx", [-1], np.int32)
        self._kept: list[Any] = []
        self._variables: list[Any] = []
        self._answer: Any = None
        self._embedded: dict[str, Any] = {}
        self._ropes: dict[str, tuple[Any, Any]] = {}
        self._masks: dict[int, Any] = {}

    # -- what a model asks for ------------------------------------------------------------------------------------

    def embed(self, matrix: Coded | Tensor, name: str) -> Any:
        self._embedded[name] = self._matrix(matrix, name)
        ids = self.ops.convert(self._inputs["input_ids"], np.int32)
        return self.ops.gather(self._embedded[name], ids, self._whole(0))

    def linear(self, x: Any, matrix: Coded | Tensor | None, name: str, bias: Tensor | None = None) -> Any:
        weight = self._embedded[name] if matrix is None else self._matrix(matrix, name)
        y = self.ops.matmul(x, weight, False, True)
        return y if bias is None else self.add(y, self._constant(bias, f"{name}.bias"))

    def rms_norm(self, x: Any, weight: Tensor, epsilon: float, heads: int = 0) -> Any:
        if heads:
            x = self._reshape(x, [0, 0, heads, -1])
        mean = self.ops.reduce_mean(self.ops.power(x, self._float(2.0)), self._whole([-1]), keep_dims=True)
        root = self.ops.sqrt(self.add(mean, self._float(epsilon)))
        x = self.multiply(x, self.ops.divide(self._float(1.0), root))
        x = self.multiply(x, self._constant(weight, "norm.weight"))
        return self._reshape(x, [0, 0, -1]) if heads else x

    def layer_norm(self, x: Any, weight: Tensor, bias: Tensor, epsilon: float) -> Any:
        x = self.ops.mvn(x, self._whole([-1]), True, epsilon, "INSIDE_SQRT")
        x = self.multiply(x, self._constant(weight, "norm.weight"))
        return self.add(x, self._constant(bias, "norm.bias"))

    def add(self, x: Any, y: Any) -> Any:
        return self.ops.add(x, y)

    def multiply(self, x: Any, y: Any) -> Any:
        return self.ops.multiply(x, self._float(y) if isinstance(y, float) else y)

    def activate(self, x: Any, kind: str) -> Any:
        if kind == "silu":
            return self.ops.swish(x)
        return self.ops.relu(x) if kind == "relu" else self.ops.gelu(x, "ERF" if kind == "gelu" else "TANH")

    def softcap(self, x: Any, cap: float) -> Any:
        return self.multiply(self.ops.tanh(self.multiply(x, 1 / cap)), cap)

    def angles(self, name: str, cos: Tensor, sin: Tensor) -> None:
        at = self.ops.convert(self._inputs["position_ids"], np.int32)
        tables = (self._constant(cos, f"cos.{name}"), self._constant(sin, f"sin.{name}"))
        turned = [self.ops.unsqueeze(self.ops.gather(table, at, self._whole(0)), self._whole([1])) for table in tables]
        self._ropes[name] = turned[0], turned[1]

    def attend(self, q: Any, k: Any, v: Any, how: Attention) -> Any:
        q, k, v = self._heads(q, how.heads), self._heads(k, how.kv_heads), self._heads(v, how.kv_heads)
        if how.rope is not None:
            q, k = self._turned(q, how), self._turned(k, how)
        keys = self._with_past(k, how, "key")
        values = self._with_past(v, how, "value")
        mask = self._causal(how, keys)
        keys, values = self._spread(keys, how), self._spread(values, how)
        if how.softcap:
            scores = self.multiply(self.ops.matmul(q, keys, False, True), how.scale)
            shares = self.ops.softmax(self.add(self.softcap(scores, how.softcap), mask), 3)
            y = self.ops.matmul(shares, values, False, False)
        else:
            y = self.ops.scaled_dot_product_attention(q, keys, values, mask, self._float(how.scale), causal=False)
        return self._joined(y)

    def attend_both_ways(self, q: Any, k: Any, v: Any, how: Attention) -> Any:
        if -1 not in self._masks:
            seen = self.ops.unsqueeze(self._inputs["attention_mask"], self._whole([1, 2]))
            self._masks[-1] = self._scores(self.ops.equal(seen, self._whole(1)))
        q, k, v = (self._heads(part, how.heads) for part in (q, k, v))
        scale = self._float(how.scale)
        return self._joined(self.ops.scaled_dot_product_attention(q, k, v, self._masks[-1], scale, causal=False))

    def shift(self, x: Any, table: Tensor, name: str) -> Any:
        length = self._part(self.ops.shape_of(self._inputs["input_ids"]), 1)
        rows = self.ops.slice(self._constant(table, name), self._whole([0]), length, self._whole([1]), self._whole([0]))
        return self.add(x, rows)

    def first(self, x: Any) -> Any:
        return self.ops.gather(x, self._whole(0), self._whole(1))

    def answer(self, x: Any, name: str) -> None:
        self._answer = self.ops.result(x)
        self._answer.output(0).get_tensor().set_names({name})

    # -- the graph itself -----------------------------------------------------------------------------------------

    def close(self, name: str) -> Path:
        """Write the graph, called `name`, and return its .xml."""
        model = self.native.Model([self._answer], self._kept, list(self._inputs.values()), self._variables, name)
        model.set_rt_info(self.mode, FLOAT_MARK)
        self.native.serialize(model, str(self.folder / MODEL))
        return self.folder / MODEL

    def _input(self, name: str, shape: list[int], kind: Any) -> Any:
        found = self.ops.parameter(shape, kind, name)
        found.output(0).get_tensor().set_names({name})
        return found

    def _counted(self, name: str, nbytes: int) -> None:
        address = name.rpartition(".")[0]
        self.bytes[address] = self.bytes.get(address, 0) + nbytes

    def _constant(self, value: Tensor, name: str) -> Any:
        """Numbers in their own type, as float32."""
        self._counted(name, value.numel() * value.element_size())
        if value.dtype == torch.float32:
            return self.ops.constant(value.contiguous().numpy())
        kind = self.native.Type.bf16 if value.dtype == torch.bfloat16 else self.native.Type.f16
        return self.ops.convert(self._packed(value.contiguous().view(torch.uint8), list(value.shape), kind), np.float32)

    def _packed(self, data: Tensor, shape: Sequence[int], kind: Any) -> Any:
        """A constant of `kind` that consists of the bytes `data`."""
        held = self.native.Tensor(kind, self.native.Shape(list(shape)))
        raw = held.data.view(np.uint8).reshape(-1)
        raw[:] = data.reshape(-1).numpy()[: held.byte_size]
        return self.native.op.Constant(held)

    def _matrix(self, matrix: Coded | Tensor, name: str) -> Any:
        """Weights `[out, in]` in float32, of codes as they are stored."""
        if isinstance(matrix, Tensor):
            return self._constant(matrix, f"{name}.weight")
        rows, columns = matrix.shape
        size = matrix.group or columns
        shape, few = [rows, columns // size, size], [rows, columns // size, 1]
        scale = matrix.scale.float()
        narrow = torch.equal(scale.half().float(), scale)  # exact, and what kernels expect
        kind = self.native.Type.f16 if narrow else self.native.Type.f32
        scale = scale.half() if narrow else scale
        signed = matrix.zero is None
        node = self.ops.convert(self._codes(matrix.codes, matrix.bits, shape, signed, name), kind)
        if matrix.zero is not None:
            zero = self._codes(matrix.zero, matrix.bits, few, False, name)
            node = self.ops.subtract(node, self.ops.convert(zero, kind))
        self._counted(f"{name}.scales", scale.numel() * scale.element_size())
        node = self.ops.multiply(node, self.ops.constant(scale.reshape(few).contiguous().numpy()))
        return self.ops.convert(self._reshape(node, [rows, columns]), np.float32)

    def _codes(self, codes: Tensor, bits: int, shape: Sequence[int], signed: bool, name: str) -> Any:
        """Codes in their own width; signed, the middle code is 0."""
        codes = codes ^ 2 ** (bits - 1) if signed else codes
        data = pack(codes.reshape(1, -1).contiguous(), bits).view(torch.uint8)
        self._counted(f"{name}.codes", codes.numel() * bits // 8)
        return self._packed(data, shape, getattr(self.native.Type, f"{'i' if signed else 'u'}{bits}"))

    def _float(self, value: float) -> Any:
        return self.ops.constant(np.float32(value))

    def _whole(self, values: int | Sequence[int]) -> Any:
        return self.ops.constant(np.array(values, dtype=np.int64))

    def _part(self, shape: Any, at: int) -> Any:
        return self.ops.gather(shape, self._whole([at]), self._whole(0))

    def _reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return self.ops.reshape(x, self._whole(shape), True)

    def _heads(self, x: Any, heads: int) -> Any:
        """`[batch, heads, tokens, width]`."""
        return self.ops.transpose(self._reshape(x, [0, 0, heads, -1]), self._whole([0, 2, 1, 3]))

    def _joined(self, y: Any) -> Any:
        return self._reshape(self.ops.transpose(y, self._whole([0, 2, 1, 3])), [0, 0, -1])

    def _turned(self, x: Any, how: Attention) -> Any:
        """x with the halves of each head turned by the angles of its position."""
        assert how.rope is not None
        cos, sin = self._ropes[how.rope]
        first, second = self.ops.split(x, self._whole(3), 2).outputs()
        left = self.ops.subtract(self.multiply(first, cos), self.multiply(second, sin))
        return self.ops.concat([left, self.add(self.multiply(second, cos), self.multiply(first, sin))], 3)

    def _with_past(self, x: Any, how: Attention, part: str) -> Any:
        """What the cache holds, then x; both are kept."""
        rows = self._part(self.ops.shape_of(self._inputs["input_ids"]), 0)
        shape = self.ops.concat([rows, self._whole([how.kv_heads]), self._whole([0]), self._whole([how.width])], 0)
        name = f"past_key_values.{how.index}.{part}present.{how.index}.{part}"
        info = self.native.op.util.VariableInfo()
        info.data_shape = self.native.PartialShape([-1, how.kv_heads, -1, how.width])
        info.data_type, info.variable_id = self.native.Type.f32, name
        variable = self.native.op.util.Variable(info)
        past = self.native.opset6.read_value(self.ops.broadcast(self._float(0.0), shape), variable)
        past = self.ops.gather(past, self._inputs["beam_idx"], self._whole(0))
        found = self.ops.concat([past, x], 2)
        self._variables.append(variable)
        self._kept.append(self.native.opset6.assign(found, variable))
        return found

    def _spread(self, x: Any, how: Attention) -> Any:
        """Keys or values for every head of the queries, which share them."""
        if how.heads == how.kv_heads:
            return x
        more = how.heads // how.kv_heads
        shape = self.ops.shape_of(x)
        parts = [self._part(shape, i) for i in range(4)]
        wide = self.ops.concat([parts[0], parts[1], self._whole([more]), parts[2], parts[3]], 0)
        x = self.ops.broadcast(self.ops.unsqueeze(x, self._whole([2])), wide)
        return self._reshape(x, [0, how.heads, -1, how.width])

    def _causal(self, how: Attention, keys: Any) -> Any:
        """0 where a token looks, `[batch, 1, tokens, all tokens]`: at those before it that the mask has, `how.window`
        of them."""
        if how.window not in self._masks:
            new = self._part(self.ops.shape_of(self._inputs["input_ids"]), 1)
            total = self._part(self.ops.shape_of(self._inputs["attention_mask"]), 1)
            whole = self._span(self._whole([0]), total)
            own = self.ops.unsqueeze(self._span(self.ops.subtract(total, new), total), self._whole([1]))
            looks = self.ops.less_equal(whole, own)
            if how.window:
                near = self.ops.greater(whole, self.ops.subtract(own, self._whole(how.window)))
                looks = self.ops.logical_and(looks, near)
            seen = self.ops.equal(self._inputs["attention_mask"], self._whole(1))
            looks = self.ops.logical_and(looks, self.ops.unsqueeze(seen, self._whole([1, 2])))
            self._masks[how.window] = self._scores(looks)
        return self._masks[how.window]

    def _span(self, start: Any, stop: Any) -> Any:
        ends = [self.ops.squeeze(end, self._whole([0])) for end in (start, stop)]
        return self.ops.range(*ends, self._whole(1), "i64")

    def _scores(self, looks: Any) -> Any:
        return self.ops.select(looks, self._float(0.0), self._float(_NEVER))
