"""A safetensors file written anew with some rows of some of its tensors, one tensor in memory at a time.

What is written is known to the byte before anything is: names and shapes make the header, and nothing else counts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from whet.checkpoint.files import DTYPES, TensorInfo, atomic, read_header, read_tensor

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Rows:
    """`ids` [n] int64: which are taken, along a dimension by tensor name (`of`). without: tensors that are left out."""

    ids: Tensor
    of: Mapping[str, int]
    without: Collection[str] = ()

    def touches(self, file: Path) -> bool:
        """Whether anything in a file changes."""
        return any(name in self.of or name in self.without for name in read_header(file))

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What becomes of the shape of a tensor."""
        return tuple(len(self.ids) if place == self.of.get(name) else size for place, size in enumerate(shape))

    def taken(self, name: str, value: Tensor) -> Tensor:
        """What becomes of a tensor."""
        dimension = self.of.get(name)
        if dimension is None:
            return value
        # as integers of the same width: not every type can be indexed
        bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[value.dtype.itemsize]
        return value.view(bits).index_select(dimension, self.ids).view(value.dtype)


def size_with(file: Path, rows: Rows) -> int:
    """Bytes of the file that `write_rows` makes."""
    if not rows.touches(file):
        return file.stat().st_size
    kept = _kept(file, rows)
    return len(_header(kept, rows)) + sum(_nbytes(name, info, rows) for name, info in kept.items())


def write_rows(file: Path, path: Path, rows: Rows) -> None:
    """Write what is left of `file` to `path`, atomically; a copy where nothing changes."""
    kept = _kept(file, rows)
    with atomic(path) as temporary:
        if not rows.touches(file):
            shutil.copyfile(file, temporary)
            return
        with temporary.open("wb") as stream:
            stream.write(_header(kept, rows))
            for name, info in kept.items():
                value = rows.taken(name, read_tensor(info)).contiguous()
                stream.write(value.reshape(-1).view(torch.uint8).numpy().data)


def _kept(file: Path, rows: Rows) -> dict[str, TensorInfo]:
    """The tensors that stay, wide types first, so that each begins at a multiple of its width."""
    found = {name: info for name, info in read_header(file).items() if name not in rows.without}
    return dict(sorted(found.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))


def _nbytes(name: str, info: TensorInfo, rows: Rows) -> int:
    before = max(1, info.shape[rows.of[name]]) if name in rows.of else 1
    return info.nbytes // before * len(rows.ids) if name in rows.of else info.nbytes


def _header(kept: Mapping[str, TensorInfo], rows: Rows) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, info in kept.items():
        start, end = end, end + _nbytes(name, info, rows)
        shape = list(rows.shape(name, info.shape))
        entries[name] = {"dtype": _NAMES[info.dtype], "shape": shape, "data_offsets": [start, end]}
    data = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data
