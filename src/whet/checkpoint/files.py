"""Reading safetensors without mapping them, and writing files so that they are whole or not there.

Reads go through plain file reads: memory is what is asked for, not what the operating system happened to map, and a
block that was freed is gone. Headers are validated before anything is believed (offsets inside the file, no overlap, no
hole, sizes that match their shapes).
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from whet.errors import MachineError, UsageError
from whet.messages import Message, to_json
from whet.strict import parse_json

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_HEADER_LIMIT = 100 * 2**20
_CHUNK = 1 << 24
_MOST_DIMENSIONS = 64  # what PyTorch has
# disk full, quota used up, file larger than the process may write
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: `file`, byte range `[start, end)` in it, `dtype` and `shape`."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        return self.end - self.start

    @property
    def on_disk(self) -> int:
        """Bytes that it takes in its file."""
        return self.nbytes


@dataclass(frozen=True)
class Computed(TensorInfo):
    """A tensor that is computed from stored ones: the `value` of `parts`. It lies where the first of them does."""

    parts: tuple[TensorInfo, ...]
    value: Callable[..., Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def on_disk(self) -> int:
        """Bytes of its parts."""
        return sum(part.nbytes for part in self.parts)


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Every tensor of a safetensors file, validated. Raises UsageError that names the file and what is wrong."""

    def bad(template: str, /, **values: Any) -> UsageError:
        why = Message(template, **values)
        return UsageError("{file} is not a whole safetensors file: {why}. Download it again.", file=file, why=why)

    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(8)
        if len(first) < 8:
            raise bad("it has {size} bytes", size=size)
        (length,) = struct.unpack("<Q", first)
        if length > _HEADER_LIMIT or 8 + length > size:
            raise bad("its header claims {length} bytes, the file has {size}", length=length, size=size)
        try:
            header = parse_json(stream.read(length))
        except ValueError as error:
            raise bad("its header is not JSON") from error
    if not isinstance(header, dict):
        raise bad("its header is not a table")
    header.pop("__metadata__", None)
    found: dict[str, TensorInfo] = {}
    for name, entry in header.items():
        try:
            dtype, shape, (start, end) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
            if len(shape) > _MOST_DIMENSIONS:
                raise bad("tensor {name} claims {count} dimensions", name=name, count=len(shape))
            elements = math.prod(shape)
        except (KeyError, TypeError, ValueError) as error:
            raise bad("the entry of tensor {name} cannot be read ({error!r})", name=name, error=error) from error
        if any(not isinstance(n, int) or n < 0 for n in (*shape, start, end)):
            raise bad("tensor {name} has a negative or non-integer size", name=name)
        if end - start != elements * dtype.itemsize:
            raise bad(
                "tensor {name} of shape {shape} needs {bytes} bytes, not {have}",
                name=name,
                shape=list(shape),
                bytes=elements * dtype.itemsize,
                have=end - start,
            )
        found[name] = TensorInfo(file, dtype, shape, 8 + length + start, 8 + length + end)
    position = 8 + length
    for name, info in sorted(found.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            raise bad("tensor {name} overlaps another or leaves a hole", name=name)
        position = info.end
    if position != size:
        raise bad(
            "its tensors need {position} bytes, the file has {size} (a download that was cut off?)",
            position=position,
            size=size,
        )
    return found


def read_tensor(info: TensorInfo) -> Tensor:
    """The tensor's values in memory of its own."""
    if isinstance(info, Computed):
        return info.value(*map(read_tensor, info.parts))
    buffer = torch.empty(info.nbytes, dtype=torch.uint8)
    try:
        stream = info.file.open("rb")
    except FileNotFoundError as error:
        raise UsageError(
            "{file} is gone since it was first read. Is something else changing the folder? Put it back and give the "
            "same command again.",
            file=info.file,
        ) from error
    with stream:
        stream.seek(info.start)
        if info.nbytes and stream.readinto(buffer.numpy().data) != info.nbytes:
            raise UsageError(
                "{file} became shorter while it was read. Is something else writing to the folder?", file=info.file
            )
    return buffer.view(info.dtype).reshape(info.shape) if info.nbytes else torch.empty(info.shape, dtype=info.dtype)


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals about `path` into one sentence with a remedy."""
    try:
        yield
    except Exception as error:
        code = getattr(error, "errno", None)
        text = str(error)
        if code in _NO_ROOM or any(f"os error {n}" in text for n in _NO_ROOM) or "No space left" in text:
            raise MachineError(
                "The disk that holds {path} is full. Free some space and give the same command again: a run goes on "
                "where it stopped.",
                path=path,
            ) from error
        if code in (errno.EACCES, errno.EPERM, errno.EROFS) or "Permission denied" in text or "os error 13" in text:
            raise MachineError(
                "{path} cannot be written ({error}). Choose a folder you may write to.", path=path, error=text
            ) from error
        raise


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well: fsync, rename, fsync the folder."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def replace(made: Path, path: Path) -> None:
    """Give a whole file the name `path`, on the same disk, so that a power cut leaves the one or the other there."""
    with disk_errors(path):
        os.replace(made, path)
    sync_folder(path.parent)


def move_into(out: Path, source: Path, *, but: str) -> None:
    """Every file and folder of `source`, other than the one named `but`, into `out`, by renaming; replaces what is
    there. May be repeated."""
    for file in sorted(source.iterdir()):
        if file.name == but:
            continue
        place = out / file.name
        if file.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        file.replace(place)
    sync_folder(out)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable UTF-8 JSON, atomically."""
    write_bytes(path, (json.dumps(to_json(value), indent=2, ensure_ascii=False) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file atomically; transformers wants the `pt` mark in it."""
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata={"format": "pt"})
        temporary.chmod(mode)  # safetensors makes files that only their owner may read
