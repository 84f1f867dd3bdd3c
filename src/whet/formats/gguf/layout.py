"""All of a .gguf before it is written: what goes where, to the byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whet.formats.gguf.placing import Placed
from whet.formats.gguf.source import Source
from whet.messages import Message


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
        return torch.stack(parts) if tensor.stacked else parts[0]

    @property
    def types(self) -> dict[str, int]:
        """How many tensors of two dimensions or more have each type."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            if len(tensor.shape) > 1:
                found[tensor.type] = found.get(tensor.type, 0) + 1
        return found
