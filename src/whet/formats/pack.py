"""`pack` and `unpack`: a folder as one file that is smaller to send, and the same bytes back.

A pack is a line that names the format, then records: eight bytes with the lengths of a head and a body, the head as
JSON, the body. Heads are `file` (its path and bytes), then its stretches, then `sha256` of the file; and at last
`whole`: how many files there were, and the SHA-256 of every byte before that record. It is read and written from
beginning to end, a stretch at a time. Nothing that a pack says is believed before it is checked, and a folder appears
under its name only when all of it was right.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from whet.checkpoint import atomic
from whet.checkpoint.files import disk_errors, read_header
from whet.checkpoint.gguf import is_gguf, read_gguf
from whet.errors import MachineError, UsageError, did_you_mean, verb
from whet.events import OnEvent, Stage, ignore
from whet.formats.gguf.blocks import BLOCK_BYTES
from whet.formats.planes import chosen, decoded, encoded
from whet.messages import Message
from whet.paths import check_out, check_output
from whet.strict import parse_json

SUFFIX = ".whetpack"
MAGIC = b"whet pack 1\n"
_STRETCH = 1 << 23  # bytes of a tensor that are coded together
_HEAD, _BODY = 1 << 20, 1 << 25  # the most bytes of a record's head and body that are read
_LENGTHS = struct.Struct("<II")
_OTHER = "other files"
Way = tuple[str, bool]  # how bytes are parted, and whether repeated strings are looked for


@verb
def pack(folder: str | Path, out: str | Path, *, on_event: OnEvent = ignore) -> dict[str, Any]:
    """Write every file of `folder` into the file `out`, coded so that nothing is lost.

    Returns `bytes` before and after, and the same by kind of tensor in `kinds` (`bf16`, `uint8`, `Q4_K`, …).
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        near = did_you_mean(folder.name, [p.name for p in folder.parent.iterdir()]) if folder.parent.is_dir() else ""
        raise UsageError("{folder} is no folder.{near} Name the folder to pack.", folder=folder, near=near)
    if folder.resolve() in out.absolute().parents or folder.resolve() in out.resolve().parents:
        raise UsageError("{out} is inside the folder to pack. Name a file outside of it.", out=out)
    check_output(out)
    files = _files(folder)
    total = sum(file.stat().st_size for file, _ in files)
    stage, done = Stage(on_event, "pack", max(1, total >> 20)), 0
    kinds: dict[str, list[int]] = {}
    with atomic(out) as temporary, temporary.open("wb") as stream:
        digest = hashlib.sha256()

        def write(data: bytes) -> None:
            stream.write(data)
            digest.update(data)

        write(MAGIC)
        for file, name in files:
            write(_record({"file": name, "bytes": file.stat().st_size}))
            own = hashlib.sha256()
            for kind, data, (parting, deflate) in _stretches(file):
                own.update(data)
                planes, coded = encoded(data, parting, deflate)
                write(_record({"bytes": len(data), "parting": parting, "planes": planes}, coded))
                sizes = kinds.setdefault(kind, [0, 0])
                sizes[0] += len(data)
                sizes[1] += len(coded)
                done += len(data)
                stage.reach(min(stage.of, done >> 20))
            write(_record({"sha256": own.hexdigest()}))
        stream.write(_record({"whole": len(files), "sha256": digest.hexdigest()}))
    stage.reach(stage.of)
    return {
        "out": str(out),
        "files": len(files),
        "bytes": {"original": total, "packed": out.stat().st_size},
        "kinds": {kind: {"original": before, "packed": after} for kind, (before, after) in kinds.items()},
    }


@verb
def unpack(file: str | Path, out: str | Path, *, on_event: OnEvent = ignore) -> dict[str, Any]:
    """Write the folder that `file` is a pack of to `out`, new or empty. Raises UsageError for a damaged pack, and
    leaves nothing behind then."""
    file, out = Path(file), Path(out)
    if not file.is_file():
        raise UsageError("{file}: there is no such file. Name a file that whet pack wrote.", file=file)
    check_out(out, file)
    if out.exists() and any(out.iterdir()):
        raise UsageError("{out} is not empty. Name a new folder.", out=out)
    scratch = out.absolute().parent / f".{out.absolute().name}.unpacking"
    shutil.rmtree(scratch, ignore_errors=True)
    stage = Stage(on_event, "unpack", max(1, file.stat().st_size >> 20))
    try:
        with disk_errors(out), file.open("rb") as stream:
            scratch.mkdir(parents=True)
            files, total = _unpacked(stream, file, scratch, stage)
            if out.exists():
                out.rmdir()
            scratch.replace(out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    stage.reach(stage.of)
    return {"out": str(out), "files": files, "bytes": {"original": total, "packed": file.stat().st_size}}


def _files(folder: Path) -> list[tuple[Path, str]]:
    """Every file below `folder` with its path there, in order. Raises UsageError for what is no file."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if not path.is_file():
            raise UsageError("{path} is neither a file nor a folder. Remove it from the folder.", path=path)
        _checked_name(name, path)
        found.append((path, name))
    if not found:
        raise UsageError("{folder} is empty. Name the folder to pack.", folder=folder)
    return found


def _checked_name(name: str, where: Path) -> PurePosixPath:
    """The path of a file in a pack. Raises UsageError for one that could lead out of the folder, or that some system
    reads otherwise."""
    path = PurePosixPath(name)
    tricks = path.is_absolute() or ".." in path.parts or any(c in name for c in '\\:\0*?"<>|') or name.startswith("~")
    if tricks or not path.parts or str(path) != name or any(part.endswith((".", " ")) for part in path.parts):
        raise UsageError("{where}: {name!r} is no path of a file in a folder.", where=where, name=name[:200])
    return path


def _stretches(file: Path) -> Iterator[tuple[str, bytes, Way]]:
    """A file's bytes from beginning to end: what kind they are of, the bytes, and how they are best coded."""
    at = 0
    with file.open("rb") as stream:
        for kind, start, end, word in _tensors(file):
            yield from _cut(stream, _OTHER, start - at, 1)
            yield from _cut(stream, kind, end - start, word)
            at = end
        yield from _cut(stream, _OTHER, file.stat().st_size - at, 1)


def _cut(stream: BinaryIO, kind: str, size: int, word: int) -> Iterator[tuple[str, bytes, Way]]:
    """The next `size` bytes in stretches of whole words, all coded alike."""
    way, step = None, _STRETCH // word * word
    while size > 0:
        data = stream.read(min(step, size))
        if not data:
            raise MachineError("A file became shorter while it was packed. Pack a folder that nothing writes to.")
        way = way or (("word 1", True) if kind == _OTHER else chosen(data, word))
        yield kind, data, way
        size -= len(data)


def _tensors(file: Path) -> list[tuple[str, int, int, int]]:
    """Tensors of a weight file in order: kind, beginning and end, and bytes of a word. None of any other file."""
    found = []
    try:
        if is_gguf(file):
            for gguf_tensor in read_gguf(file).tensors.values():
                word = BLOCK_BYTES.get(gguf_tensor.type, (0, 0))[1] or {"F32": 4}.get(gguf_tensor.type, 2)
                found.append((gguf_tensor.type, gguf_tensor.start, gguf_tensor.end, word))
        elif file.suffix == ".safetensors":
            for tensor in read_header(file).values():
                kind = str(tensor.dtype).removeprefix("torch.")
                found.append((kind, tensor.start, tensor.end, tensor.dtype.itemsize))
    except UsageError:  # another kind of file under that name: packed as any
        return []
    found = sorted((one for one in found if one[2] > one[1]), key=lambda one: one[1])
    apart = all(one[2] <= other[1] for one, other in pairwise(found))
    return found if apart else []


def _record(head: dict[str, Any], body: bytes = b"") -> bytes:
    said = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    return _LENGTHS.pack(len(said), len(body)) + said + body


def _unpacked(stream: BinaryIO, file: Path, folder: Path, stage: Stage) -> tuple[int, int]:
    """Write what the pack holds into `folder`; how many files and bytes there were."""

    def damaged(why: Message) -> UsageError:
        return UsageError("{file} is damaged: {why}. Copy or download it again.", file=file, why=why)

    digest, total, read = hashlib.sha256(), 0, len(MAGIC)
    names: set[str] = set()
    first = stream.read(len(MAGIC))
    if first != MAGIC:
        raise UsageError("{file} is not a pack. Name a file that whet pack wrote.", file=file)
    digest.update(first)
    try:
        while True:
            head, body, raw = _next(stream)
            read += len(raw)
            if "whole" in head:
                if head["whole"] != len(names) or head["sha256"] != digest.hexdigest() or stream.read(1):
                    raise damaged(Message("its SHA-256 is another"))
                return len(names), total
            digest.update(raw)
            name = str(head["file"])
            path = folder / _checked_name(name, file)
            if name.casefold() in names:
                raise damaged(Message("it has {name} twice", name=name))
            names.add(name.casefold())
            path.parent.mkdir(parents=True, exist_ok=True)
            own, left = hashlib.sha256(), int(head["bytes"])
            if left > shutil.disk_usage(folder).free:
                raise MachineError(
                    "{name} takes {bytes:,} bytes, and less is free on the disk. Free some, or unpack elsewhere.",
                    name=name,
                    bytes=left,
                )
            with path.open("xb") as made:
                while True:
                    head, body, raw = _next(stream)
                    read += len(raw)
                    digest.update(raw)
                    stage.reach(min(stage.of, read >> 20))
                    if "sha256" in head:
                        break
                    if not 0 <= int(head["bytes"]) <= min(left, _STRETCH):
                        raise damaged(Message("{name} is longer than it says", name=name))
                    data = decoded(body, head["planes"], head["parting"], int(head["bytes"]))
                    left -= len(data)
                    own.update(data)
                    made.write(data)
                made.flush()
                os.fsync(made.fileno())
            if left or own.hexdigest() != head["sha256"]:
                raise damaged(Message("{name} is not what was packed", name=name))
            total += path.stat().st_size
    except (ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise damaged(Message("{error}", error=str(error) or type(error).__name__)) from error


def _next(stream: BinaryIO) -> tuple[dict[str, Any], bytes, bytes]:
    """Head and body of the next record, and its bytes. Raises EOFError or ValueError."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        raise EOFError("it ends in the middle")
    first, second = _LENGTHS.unpack(lengths)
    if first > _HEAD or second > _BODY:
        raise ValueError("a record is longer than any that whet writes")
    said, body = stream.read(first), stream.read(second)
    if len(said) < first or len(body) < second:
        raise EOFError("it ends in the middle")
    head = parse_json(said)
    if not isinstance(head, dict):
        raise ValueError("the head of a record is no table")
    return head, body, lengths + said + body
