"""All of a .gguf before it is written: what goes where, to the byte."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whet.formats.gguf.architectures import Architecture
from whet.formats.gguf.blocks import row_bytes
from whet.formats.gguf.source import Source
from whet.messages import Message


@dataclass(frozen=True)
class Placed:
    """A tensor of the file: its name, type and shape, and what it is made of.

    sources: names in the folder, one above the other (experts along a first dimension, if `stacked`). order: of the
    rows, None as they are. add: what is added to every number. transposed: stored `[in, out]`. value: computed.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    sources: tuple[str, ...] = ()
    order: Tensor | None = None
    add: float = 0.0
    transposed: bool = False
    value: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        return math.prod(self.shape[:-1]) * row_bytes(self.type, self.shape[-1])


@dataclass
class Layout:
    """All of a file before it is written: entries, tensors, and remarks; and of the file of its adapter, if the folder
    has one."""

    architecture: str
    entries: dict[str, Any]
    tensors: list[Placed]
    source: Source
    notes: list[Message] = field(default_factory=list)
    adapter: Layout | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, without padding."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def values(self, tensor: Placed) -> Tensor:
        """What a tensor of the file must decode to, float32, by the folder's own definition of its weights."""
        if tensor.value is not None:
            return tensor.value.float()
        parts = []
        for name in tensor.sources:
            value = self.source.values(name)
            value = (value.t() if tensor.transposed else value) + tensor.add
            if not self.source.tensors[name].coded and tensor.type != "F32":
                value = value.to(torch.float16 if tensor.type == "F16" else torch.bfloat16).float()
            parts.append(value if tensor.order is None else value[tensor.order])
        return torch.stack(parts) if len(tensor.shape) == 3 else parts[0]

    @property
    def types(self) -> dict[str, int]:
        """How many tensors of two dimensions or more have each type."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            if len(tensor.shape) > 1:
                found[tensor.type] = found.get(tensor.type, 0) + 1
        return found


def order_of(row: Architecture, config: Any, target: str, rows: int) -> Tensor | None:
    """The order in which llama.cpp wants the rows of a tensor of the file, None: as they are."""
    return None if row.order is None else row.order(config, target.split(".")[-2], rows)
