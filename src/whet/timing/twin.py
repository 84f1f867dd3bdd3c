"""A twin of a model to time: a .gguf of its architecture and shapes, with random weights in any types.

How fast a model runs does not depend on what its weights are, so nothing is read of the original but its headers and
nothing is solved. A tensor is a few rows of its type, repeated. Of a large model the twin has its first blocks only.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Linear
from whet.checkpoint import Checkpoint
from whet.errors import UsageError
from whet.formats.gguf import plan_gguf
from whet.formats.gguf.blocks import BLOCK_BYTES, FLOAT_BYTES, FLOAT_TYPES, blocks, float_rows, row_bytes
from whet.formats.gguf.layout import Layout
from whet.formats.gguf.placing import Placed
from whet.formats.gguf.write import write_gguf
from whet.grids import BLOCKS
from whet.quantize import nearest
from whet.targets import TARGETS, stand_in

RUNTIME = "llama.cpp"
# A twin in 16 bits has at most so many bytes of blocks: more than caches hold even in two bits a weight.
MOST = 1 << 29
LOOKUP = "embedding"  # the class of a table that decoding reads a row of
_ROWS = 16  # random rows that a tensor repeats


@dataclass(frozen=True)
class Twin:
    """layout: of the model's file in 16 bits. depth: blocks that are written, of `blocks`. classes: what class of
    shapes each matrix of the file is of, by its name; all of a class take equally long. columns: of a row, by class."""

    layout: Layout
    blocks: int
    depth: int
    classes: dict[str, str]
    columns: dict[str, int]

    @property
    def about(self) -> dict[str, Any]:
        """What the speed of the model depends on, for the key of a measurement."""
        of_the_model = {k: v for k, v in self.layout.entries.items() if k.startswith(f"{self.layout.architecture}.")}
        shapes = [(t.name, *t.shape) for t in self.layout.tensors]
        told = json.dumps([of_the_model, shapes], default=str, sort_keys=True)
        return {"shapes": hashlib.sha256(told.encode()).hexdigest(), "depth": self.depth}

    def types(self, kind: str) -> dict[str, str]:
        """Every class on `kind`, or on what stands in for it where its blocks do not divide a row."""
        return {name: stand_in(TARGETS[RUNTIME], kind, columns) for name, columns in self.columns.items()}

    def holds(self, kind: str, name: str) -> bool:
        """Whether rows of a class divide by the blocks of `kind`."""
        return kind in FLOAT_BYTES or self.columns[name] % BLOCK_BYTES[kind][0] == 0

    def matrices(self, depth: int) -> list[tuple[Placed, str]]:
        """What decoding multiplies in the first `depth` blocks and outside of blocks, and the class of each."""
        return [
            (tensor, name)
            for tensor in self.layout.tensors
            if (name := self.classes.get(tensor.name, LOOKUP)) != LOOKUP and _block(tensor.name) < depth
        ]

    def counts(self, depth: int) -> dict[str, int]:
        """Matrices of each class in the first `depth` blocks and outside of blocks."""
        return dict(Counter(name for _, name in self.matrices(depth)))

    def by_tensor(self) -> Twin:
        """The twin with every matrix a class of its own."""
        return dataclasses.replace(self, classes={name: name for name in self.classes})

    def shares(self) -> dict[str, float]:
        """The share of all weights that a twin's decoding multiplies, by class."""
        found: dict[str, int] = {}
        for tensor, name in self.matrices(self.depth):
            found[name] = found.get(name, 0) + math.prod(tensor.shape)
        return {name: size / sum(found.values()) for name, size in found.items()}

    def bytes_read(self, types: Mapping[str, str], depth: int) -> int:
        """Bytes of those matrices, all experts counted."""
        return sum(
            math.prod(tensor.shape[:-1]) * row_bytes(types[name], tensor.shape[-1])
            for tensor, name in self.matrices(depth)
        )


def twin_of(model: str | Path, most: int = MOST, depth: int | None = None) -> Twin:
    """The twin of an original, of its first `depth` blocks, or those of at most `most` bytes in 16 bits. Raises
    UsageError for what has no .gguf, and for a folder that whet quantized.
    """
    checkpoint = Checkpoint(model)
    if (checkpoint.whet or {}).get("linears"):
        raise UsageError(
            "{model} is a lighter model, and speeds are measured on an original's shapes in every format. Name the "
            "original.",
            model=model,
        )
    layout = plan_gguf(model, "F16")
    classes, columns = {}, {}
    tied = not any(tensor.name == "output.weight" for tensor in layout.tensors)
    for tensor in layout.tensors:
        if len(tensor.shape) < 2 or tensor.type == "F32" or not tensor.name.endswith(".weight"):
            continue
        looked_up = tensor.name.startswith(("token_embd", "per_layer_token_embd")) and not (
            tied and tensor.name == "token_embd.weight"
        )
        name = LOOKUP if looked_up else " x ".join(map(str, tensor.shape))
        classes[tensor.name], columns[name] = name, tensor.shape[-1]
    count = 1 + max((_block(tensor.name) for tensor in layout.tensors), default=0)
    one = sum(tensor.nbytes for tensor in layout.tensors if _block(tensor.name) >= 0) / max(count, 1)
    depth = depth or max(1, min(count, int(most / max(one, 1))))
    return Twin(layout, count, depth, classes, columns)


def parts_of(twin: Twin, linears: Iterable[Linear]) -> dict[str, dict[str, float]]:
    """What share of which class's matrix each linear is, by address."""
    made: dict[str, dict[str, float]] = {}
    whole: dict[str, int] = {}
    for tensor in twin.layout.tensors:
        if (name := twin.classes.get(tensor.name)) is None:
            continue
        for source in tensor.sources:
            stored = source.partition(" of expert ")[0].removesuffix(" as in llama.cpp")
            shares = made.setdefault(stored, {})
            shares[name] = shares.get(name, 0.0) + 1 / len(tensor.sources)
            whole[stored] = whole.get(stored, 0) + math.prod(tensor.shape) // len(tensor.sources)
    return {
        linear.address: {
            name: share * min(1.0, math.prod(linear.shape) / whole[linear.parameter])
            for name, share in made.get(linear.parameter, {}).items()
        }
        for linear in linears
    }


def kept_types(twin: Twin, linears: Iterable[Linear]) -> set[str]:
    """Types that the file has of linears that stay as they are."""
    tensors = twin.layout.source.checkpoint.tensors
    return {FLOAT_TYPES[tensors[linear.parameter].dtype] for linear in linears}


def write_twin(twin: Twin, types: Mapping[str, str], path: Path, depth: int | None = None) -> int:
    """Write the file with a type for each class, and the first `depth` blocks; returns its bytes."""
    depth = twin.depth if depth is None else depth
    entries = {
        key: value[:depth] if isinstance(value, list) and len(value) == twin.blocks else value
        for key, value in twin.layout.entries.items()
    }
    entries[f"{twin.layout.architecture}.block_count"] = depth
    tensors = [
        _random(t, types.get(twin.classes.get(t.name, ""))) for t in twin.layout.tensors if _block(t.name) < depth
    ]
    write_gguf(dataclasses.replace(twin.layout, entries=entries, tensors=tensors, adapter=None), path)
    return path.stat().st_size


def _block(name: str) -> int:
    """The block that a tensor of a file is in; -1 outside."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" and parts[1].isdigit() else -1


def _random(tensor: Placed, kind: str | None) -> Placed:
    """The tensor with weights of its own in `kind`; what no type was chosen for is neutral, or as it was computed."""
    if tensor.value is not None:
        return tensor
    if kind is None:
        ones = "norm" in tensor.name and tensor.name.endswith(".weight")
        value = torch.full(tensor.shape, 1.0 if ones else 0.0)
        if len(tensor.shape) > 1:  # a router that has no favourites
            value = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)) * 0.02
        return Placed(tensor.name, "F32", tensor.shape, value=value)
    rows = _rows(kind, tensor.shape[-1])
    count = math.prod(tensor.shape[:-1])
    value = rows.repeat(-(-count // len(rows)), 1)[:count].reshape(*tensor.shape[:-1], rows.shape[1])
    return Placed(tensor.name, kind, tensor.shape, value=value)


@functools.cache
def _rows(kind: str, columns: int) -> Tensor:
    """Rows of random weights, uint8 `[_ROWS, bytes]`."""
    w = 0.02 * torch.randn(_ROWS, columns, generator=torch.Generator().manual_seed(columns))
    if kind in FLOAT_BYTES:
        return float_rows(w, kind, kind)
    solution = nearest(w, None, BLOCKS[kind])
    return blocks(solution.codes, solution.params, kind, kind)
