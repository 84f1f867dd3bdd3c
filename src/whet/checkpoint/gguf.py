"""Reading the header of a .gguf file, with every count, length, offset and type checked before it is believed.

Native readers trust much of what a header says (a score array shorter than the vocabulary is read past its end), so no
file goes to one before it has passed here. What is refused is refused in a sentence; nothing is allocated that the file
itself does not hold, and no tensor is read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from whet.checkpoint.no_model import refuse_pointers
from whet.errors import UsageError, did_you_mean
from whet.messages import Message, with_and

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_ENTRIES = 1 << 16
_MOST_TENSORS = 1 << 18
_MOST_TEXT = 1 << 24  # bytes of one string: a chat template takes some thousands
_CHUNK = 1 << 20
_MOST_NAME = 63  # bytes of a tensor's name, as ggml reserves
_MOST_ALIGNMENT = 1 << 16
_LEAST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8  # bytes a tensor takes in the header
_LEAST_ENTRY = 8 + 1 + 4 + 1
_STRING, _ARRAY, _BOOL = 8, 9, 7
# value types by their number in the file, as numpy reads them
_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8", 11: "<i8", 12: "<f8"}
# arrays that a native reader walks by the length of another
_PER_TOKEN = {"tokenizer.ggml.scores": "<f4", "tokenizer.ggml.token_type": "<i4"}
_MOST_BLOCKS = 512  # that llama.cpp has room for
_POSITIVE = ("block_count", "embedding_length", "context_length")
_TOKENS = "tokenizer.ggml.tokens"
# The name of the file beside a model's whose adapter is a part of it.
ADAPTER_KEY = "whet.adapter"
ADAPTER_SUFFIX = "-adapter.gguf"  # of the file beside it


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a .gguf file: ggml's `type`, `shape` as PyTorch writes it, and the byte range `[start, end)`."""

    type: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data, without padding."""
        return self.end - self.start


@dataclass(frozen=True)
class GgufFile:
    """A validated header: `metadata` by key (arrays as lists or numpy arrays) and `tensors` by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the kind of model."""
        return str(self.metadata.get("general.architecture", ""))

    def setting(self, key: str, default: Any = None) -> Any:
        """The value of `<architecture>.<key>`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def tokens(self) -> list[str]:
        """The vocabulary, by id."""
        return list(self.metadata.get(_TOKENS, []))

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, without padding."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of one tensor, `[..., bytes of a row]`, in memory of their own."""
        tensor = self.tensors[name]
        with self.path.open("rb") as stream:
            stream.seek(tensor.start)
            data = np.fromfile(stream, dtype=np.uint8, count=tensor.nbytes)
        if data.size != tensor.nbytes:
            raise UsageError(
                "{path} became shorter while it was read. Is something else writing to it?", path=self.path
            )
        return data.reshape(*tensor.shape[:-1], -1)

    def size(self) -> dict[str, int]:
        """Bytes by part, with the keys of `size_on_disk`."""
        parts = dict.fromkeys(("linears", "embedding", "head", "other"), 0)
        for name, tensor in self.tensors.items():
            named = {"token_embd.weight": "embedding", "output.weight": "head"}.get(name)
            matrix = name.startswith("blk.") and name.endswith(".weight") and len(tensor.shape) > 1
            parts[named or ("linears" if matrix else "other")] += tensor.nbytes
        whole = self.path.stat().st_size
        if self.adapter is not None:
            parts["adapter"] = read_gguf(self.adapter).nbytes
            whole += self.adapter.stat().st_size
        return {**parts, "weights": whole, "tokenizer": 0, "total": whole}

    @property
    def adapter(self) -> Path | None:
        """The file beside this one whose adapter is a part of the model, if whet wrote one. Raises UsageError where it
        is not there any more."""
        name = self.metadata.get(ADAPTER_KEY)
        if name is None:
            return None
        if not isinstance(name, str) or Path(name).name != name or not (self.path.parent / name).is_file():
            raise UsageError(
                "{path} was made to run with the adapter {name!r} beside it, which is not there. Put it into "
                "{folder}, or export the folder again.",
                path=self.path,
                name=name,
                folder=self.path.parent,
            )
        return self.path.parent / name


def is_gguf(path: str | Path) -> bool:
    """Whether `path` names a .gguf file rather than a model folder."""
    return Path(path).suffix.lower() == ".gguf" and not Path(path).is_dir()


def read_gguf(path: str | Path) -> GgufFile:
    """The validated header of the .gguf file `path`. Raises UsageError that names the file and what is wrong."""
    path = Path(path)
    if not path.is_file():
        parent = path.parent
        near = did_you_mean(path.name, [p.name for p in parent.iterdir()]) if parent.is_dir() else ""
        raise UsageError("{path} does not exist.{near} Give a .gguf file or a model folder.", path=path, near=near)
    refuse_pointers([path])
    with path.open("rb") as stream:
        return _read(_Cursor(path, stream, path.stat().st_size))


class _Cursor:
    """A position in a file that refuses to go past its end; reads ahead, as a vocabulary is 10⁵ short strings."""

    def __init__(self, path: Path, stream: BinaryIO, size: int) -> None:
        self.path, self.stream, self.size = path, stream, size
        self._ahead, self._start, self._next = b"", 0, 0  # what was read, where that begins, where in it we are

    @property
    def at(self) -> int:
        """How many bytes were taken."""
        return self._start + self._next

    def bad(self, template: str, /, **values: Any) -> UsageError:
        """What is raised for everything that is wrong."""
        why = Message(template, **values)
        return UsageError(
            "{path} is not a whole .gguf file: {why}. Download or export it again.", path=self.path, why=why
        )

    @property
    def left(self) -> int:
        """Bytes to the end of the file."""
        return self.size - self.at

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        if self._next + count > len(self._ahead):
            self._fill(count, what)
        data = self._ahead[self._next : self._next + count]
        self._next += count
        return data

    def number(self, kind: str, what: str) -> int:
        """The next integer of the `struct` format `kind`."""
        return int(struct.unpack(kind, self.take(8 if kind == "<Q" else 4, what))[0])

    def text(self, what: str, most: int = _MOST_TEXT) -> bytes:
        """The next string."""
        length = self.number("<Q", what)
        if length > most:
            raise self.bad("{what} claims a length of {length} bytes", what=what, length=length)
        return self.take(length, what)

    def _fill(self, count: int, what: str) -> None:
        if count > self.left:
            raise self.bad("{what} needs {count} bytes and {left} are left", what=what, count=count, left=self.left)
        kept = self._ahead[self._next :]
        self._start, self._next = self.at, 0
        self._ahead = kept + self.stream.read(max(count - len(kept), _CHUNK))
        if len(self._ahead) < count:
            raise self.bad("it ends within {what}", what=what)


def _read(cursor: _Cursor) -> GgufFile:
    if cursor.take(4, Message("the mark GGUF")) != _MAGIC:
        raise cursor.bad("it does not begin with GGUF")
    version = cursor.number("<I", Message("the version"))
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        if swapped in _VERSIONS:
            raise cursor.bad(
                "it is written for big-endian machines, and versions {versions} are read", versions=with_and(_VERSIONS)
            )
        raise cursor.bad(
            "it has version {version}, and versions {versions} are read", version=version, versions=with_and(_VERSIONS)
        )
    tensors, entries = (
        cursor.number("<Q", Message("the number of tensors")),
        cursor.number("<Q", Message("the number of entries")),
    )
    left = cursor.left
    if tensors > min(_MOST_TENSORS, left // _LEAST_TENSOR):
        raise cursor.bad("it claims {count} tensors, more than {left} bytes can hold", count=tensors, left=left)
    if entries > min(_MOST_ENTRIES, left // _LEAST_ENTRY):
        raise cursor.bad("it claims {count} entries, more than {left} bytes can hold", count=entries, left=left)
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = _decoded(cursor, cursor.text(Message("a key"), 1 << 16), Message("a key"))
        if key in metadata:
            raise cursor.bad("the entry {key} is there twice", key=key)
        metadata[key] = _value(cursor, key)
    _check_tokens(metadata, cursor.bad)
    _check_settings(metadata, cursor.bad)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _MOST_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.bad("general.alignment is {alignment!r}, not a power of two", alignment=alignment)
    told = [_tensor(cursor) for _ in range(tensors)]
    data = _up(cursor.at, alignment)
    position = 0
    found: dict[str, GgufTensor] = {}
    for name, kind, shape, size, offset in told:
        if name in found:
            raise cursor.bad("tensor {name} is there twice", name=name)
        if offset != position:
            raise cursor.bad(
                "tensor {name} begins at {offset} instead of {position}: it overlaps or leaves a hole",
                name=name,
                offset=offset,
                position=position,
            )
        position = _up(offset + size, alignment)
        if data + offset + size > cursor.size:
            raise cursor.bad(
                "tensor {name} ends at {end}, the file at {size} (cut off?)",
                name=name,
                end=data + offset + size,
                size=cursor.size,
            )
        found[name] = GgufTensor(kind, shape, data + offset, data + offset + size)
    return GgufFile(cursor.path, metadata, found)


def _value(cursor: _Cursor, key: str) -> Any:
    kind = cursor.number("<I", Message("the type of {key}", key=key))
    if kind != _ARRAY:
        return _scalar(cursor, key, kind)
    kind, count = (
        cursor.number("<I", Message("the type of {key}", key=key)),
        cursor.number("<Q", Message("the length of {key}", key=key)),
    )
    width = {_STRING: 8, _BOOL: 1}.get(kind) or (np.dtype(_SCALARS[kind]).itemsize if kind in _SCALARS else 0)
    if not width:
        raise cursor.bad("{key} is a list of type {type}, which does not exist or is a list itself", key=key, type=kind)
    if count > cursor.left // width:
        raise cursor.bad(
            "{key} claims {count} items, more than {left} bytes can hold", key=key, count=count, left=cursor.left
        )
    if kind == _STRING:
        item = Message("an item of {key}", key=key)
        return [cursor.text(item).decode("utf-8", "surrogateescape") for _ in range(count)]
    data = np.frombuffer(cursor.take(count * width, key), dtype=_SCALARS.get(kind, "<u1"))
    return data.astype(bool) if kind == _BOOL else data


def _scalar(cursor: _Cursor, key: str, kind: int) -> Any:
    if kind == _STRING:
        return _decoded(cursor, cursor.text(key), key)
    if kind == _BOOL:
        return bool(cursor.take(1, key)[0])
    if kind not in _SCALARS:
        raise cursor.bad("{key} has type {type}, which does not exist", key=key, type=kind)
    dtype = np.dtype(_SCALARS[kind])
    return np.frombuffer(cursor.take(dtype.itemsize, key), dtype=dtype)[0].item()


def _tensor(cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int, int]:
    """Name, type, shape, bytes and offset of the next tensor."""
    name = _decoded(cursor, cursor.text(Message("the name of a tensor"), _MOST_NAME), Message("the name of a tensor"))
    count = cursor.number("<I", Message("the dimensions of {name}", name=name))
    if not 1 <= count <= 4:
        raise cursor.bad("tensor {name} claims {count} dimensions", name=name, count=count)
    sizes = [cursor.number("<Q", Message("the shape of {name}", name=name)) for _ in range(count)]
    number = cursor.number("<I", Message("the type of {key}", key=name))
    try:
        kind = GGMLQuantizationType(number)
        block, width = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError) as error:
        raise cursor.bad("tensor {name} has type {type}, which whet does not know", name=name, type=number) from error
    elements = math.prod(sizes)
    if not 0 < elements < 1 << 48:
        raise cursor.bad("tensor {name} claims the shape {shape}", name=name, shape=sizes[::-1])
    if sizes[0] % block:
        raise cursor.bad(
            "tensor {name} has rows of {length}, which {type} cannot hold (blocks of {size})",
            name=name,
            length=sizes[0],
            type=kind.name,
            size=block,
        )
    offset = cursor.number("<Q", Message("the place of {name}", name=name))
    return name, kind.name, tuple(sizes[::-1]), elements // block * width, offset


def _check_tokens(metadata: dict[str, Any], bad: Callable[..., UsageError]) -> None:
    """Lists that are read by the vocabulary's length must have it."""
    tokens = metadata.get(_TOKENS)
    if tokens is not None and not isinstance(tokens, list):
        raise bad("{key} is not a list of strings", key=_TOKENS)
    for key, dtype in _PER_TOKEN.items():
        value = metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, np.ndarray) or value.dtype != np.dtype(dtype):
            raise bad("{key} is not a list of {type}", key=key, type=np.dtype(dtype).name)
        if len(value) != len(tokens or []):
            raise bad(
                "{key} has {count} items for {tokens} tokens", key=key, count=len(value), tokens=len(tokens or [])
            )


def _check_settings(metadata: dict[str, Any], bad: Callable[..., UsageError]) -> None:
    """Numbers of the architecture, by which native code loops and divides: it aborts on those that cannot be."""
    prefix = f"{metadata.get('general.architecture')}."
    for key, value in metadata.items():
        name = key.removeprefix(prefix)
        if name == key or isinstance(value, (str, bool, list)):
            continue
        every = np.atleast_1d(np.asarray(value))
        low, high = -math.inf, math.inf
        if name.endswith("epsilon"):
            low, high = 0, 1
        elif name.endswith(("_count", "_length", "vocab_size")):
            low, high = int(name in _POSITIVE), _MOST_BLOCKS if name == "block_count" else 2**31 - 1
        if not np.isfinite(every).all() or (every < low).any() or (every > high).any():
            raise bad("{key} is {value}, which no model has", key=key, value=str(value)[:60])


def _decoded(cursor: _Cursor, data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise cursor.bad("{what} is not UTF-8", what=what) from error


def _up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
