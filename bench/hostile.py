"""Damaged and hostile model folders through every verb: each ends well or with an error that tells what is wrong.

Tiny folders of every kind that whet writes, and originals, are changed one thing at a time: every field of `whet.json`,
`config.json`, an index, a tokenizer, a shard's header; bytes, lengths, types, shapes and offsets of shards. Of a folder
with hashes `verify` must name the file that was changed; then the hashes are made right again, so that what reads the
file is tried too. Anything but a `WhetError` is a defect of whet, and so is a call that takes longer than `--limit`.

Everything is drawn by `--seed`. llama.cpp is not run: whet opens files there in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import json
import logging
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import tiny_models
import whet
from whet.checkpoint import hashed_files
from whet.errors import WhetError
from whet.messages import Message

ENDS = ("well", "told", "internal", "slow")
LONG = 12  # of so many mutations one is also asked for what takes seconds
# Kinds of folders, each with the original that it is or was made from.
ORIGINALS = {name: name for name in ("llama", "phi3", "gpt2")} | {"fused": "phi3"}
ORIGINALS |= dict.fromkeys(("packed", "coded", "floats", "ggml", "dense"), "llama")
KINDS = tuple(ORIGINALS)
SCORED = ("llama", "phi3", "gpt2", "dense")  # which inspect and plan go through; others they refuse at once
MANIFEST, LONGEST = "whet.json", 2000  # letters of an error that people still read
TEXT = [f"{text} {text}" for text in tiny_models.documents(12)]
DEEP: list[Any] = []
for _ in range(40):
    DEEP = [DEEP]
REMOVED = object()
# What a field becomes. Values are made from the one that is there, as most checks look at its type first.
VALUES: dict[str, Callable[[Any], Any]] = {
    "removed": lambda value: REMOVED,
    "null": lambda value: None,
    "other type": lambda value: 7 if isinstance(value, (str, list, dict)) else "seven",
    "list": lambda value: [value],
    "empty": lambda value: {dict: {}, list: [], str: ""}.get(type(value), 0),
    "huge": lambda value: "x" * 5000 if isinstance(value, str) else 10**19,
    "negative": lambda value: -1,
    "fraction": lambda value: 0.5,
    "not finite": lambda value: float("nan"),
    "true": lambda value: True,
    "nested": lambda value: copy.deepcopy(DEEP),
    "other text": lambda value: "../../etc/hostname",
    "more": lambda value: {**value, "b": 1} if isinstance(value, dict) else [value, value],
    "by one": lambda value: value + 1 if isinstance(value, (int, float)) else f"{value}?",
}


@dataclass(frozen=True)
class Mutation:
    """One change: the `folder` and `file` that it is of, what `kind` it is, where, and the file's new bytes."""

    folder: str
    file: str
    kind: str
    where: str
    content: Callable[[], bytes | None]


@dataclass
class Tally:
    """What came of it: calls by kind and outcome, and every defect with where it is."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    defects: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str, str], str] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3000, help="mutations, drawn evenly of folders and files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=20, help="seconds a call may take")
    parser.add_argument("--only", default="", help="folders or files with this in their names")
    parser.add_argument("--out", type=Path, help="keep the folders here")
    parser.add_argument("--trace", action="store_true", help="print the traceback of the first defect of each kind")
    asked = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        root = asked.out or Path(scratch) / "folders"
        folders = make_folders(root)
        tally = attack(folders, asked.count, asked.seed, asked.limit, Path(scratch) / "work", asked.only)
    show(tally, asked.trace)
    return 1 if tally.defects else 0


def quiet() -> None:
    """What libraries say of damaged files is not of interest."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    unproved = Message("not run here")
    importlib.import_module("whet.formats.export").prove_running = lambda *_: {"llama.cpp": unproved}


def make_folders(root: Path, names: Sequence[str] = KINDS) -> dict[str, Path]:
    """A folder of each kind that is named: originals, and lighter ones in every container; and their originals."""
    free = {"scheme": "", "solver": "nearest"}
    some: dict[str, Any] = {"text": TEXT, "samples": 4, "window": 16}
    made: dict[str, Path] = {}
    for name in names:
        original = ORIGINALS[name]
        if original not in made:
            made[original] = tiny_models.make(original, root / original)
        made[name] = folder = root / name
        if (folder / MANIFEST).is_file() or name == original:
            continue
        if name == "dense":
            whet.masks(made[original], folder, pattern="2:4", **some)
            continue
        options: dict[str, Any] = {
            "packed": {**free, "scheme": "int4s-g32"},
            "coded": {"scheme": "int3z-g32", "embed": "int4-g32", "target": "whet", "repair": 2, **some},
            "floats": {**free, "scheme": "fp4m2-g32", "embed": "nf4-g32", "target": "whet"},
            "fused": {**free, "scheme": "int3z-g32", "target": "whet"},
            "ggml": {**free, "scheme": "Q4_0", "target": "llama.cpp", "folder": True},
        }[name]
        whet.compress(made[original], folder, **options)
    return made


def attack(folders: dict[str, Path], count: int, seed: int, limit: int, work: Path, only: str = "") -> Tally:
    """Draw `count` mutations and try each."""
    chance = random.Random(seed)
    piles: dict[tuple[str, str, str], list[Mutation]] = {}
    for name, folder in folders.items():
        for mutation in mutations(name, folder, chance):
            if only in f"{name}/{mutation.file}":
                piles.setdefault((name, told_as(mutation.file), mutation.kind), []).append(mutation)
    for pile in piles.values():
        chance.shuffle(pile)
    drawn: list[Mutation] = []
    while len(drawn) < count and any(piles.values()):
        drawn += [pile.pop() for pile in piles.values() if pile]
    drawn = chance.sample(drawn, min(count, len(drawn)))
    tally = Tally()
    for number, mutation in enumerate(drawn):
        try_one(folders, mutation, tally, limit, work, long=number % LONG == 0)
        if sys.stderr.isatty() and number % 20 == 0:
            print(f"\r{number} of {len(drawn)}, defects: {sum(tally.defects.values())}", end="", file=sys.stderr)
    return tally


def told_as(file: str) -> str:
    """What kind of file it is."""
    return "shard" if file.endswith(".safetensors") else "index" if file.endswith("index.json") else file


def mutations(name: str, folder: Path, chance: random.Random) -> Iterator[Mutation]:
    """Every mutation of a folder."""
    for file in sorted(folder.rglob("*")):
        named = file.relative_to(folder).as_posix()
        if named.endswith(".json") and named not in ("scores.json", "plan.json", "generation_config.json"):
            yield from json_mutations(name, named, file.read_bytes(), chance)
        elif named.endswith(".safetensors"):
            yield from shard_mutations(name, named, file.read_bytes(), chance)
        if named.endswith((".json", ".safetensors")):
            yield Mutation(name, named, "removed", "the file", lambda: None)


def json_mutations(name: str, file: str, content: bytes, chance: random.Random) -> Iterator[Mutation]:
    """Each field of a document as each of VALUES, and the file cut off or with other bytes."""
    document = json.loads(content)
    for path in fields(document):
        for kind, value in VALUES.items():
            where = ".".join(map(str, path)) or "the whole"
            yield Mutation(
                name, file, kind, where, lambda path=path, value=value: json.dumps(put(document, path, value)).encode()
            )
    for number in range(30):
        yield Mutation(name, file, "bytes", f"draw {number}", flipped(content, 0, len(content), chance.random()))
        yield Mutation(name, file, "cut", f"draw {number}", cut(content, chance.random()))


def fields(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every field; of long lists, and of vocabularies, the first and the last."""
    yield path
    keys: list[Any] = list(document) if isinstance(document, dict) else []
    keys = list(range(len(document))) if isinstance(document, list) else keys
    for key in keys if len(keys) <= 40 else [keys[0], keys[-1]]:
        yield from fields(document[key], (*path, key))


def put(document: Any, path: tuple[Any, ...], value: Callable[[Any], Any]) -> Any:
    """A copy of the document in which what is at `path` is another value."""
    whole = [copy.deepcopy(document)]
    owner: Any = whole
    for key in (0, *path)[:-1]:
        owner = owner[key]
    last = (0, *path)[-1]
    new = value(owner[last])
    if new is REMOVED and path:
        del owner[last]
    else:
        owner[last] = {} if new is REMOVED else new
    return whole[0]


def shard_mutations(name: str, file: str, content: bytes, chance: random.Random) -> Iterator[Mutation]:
    """A shard with another header, other bytes, another length."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    for number in range(12):
        yield Mutation(name, file, "header bytes", f"draw {number}", flipped(content, 8, 8 + length, chance.random()))
        yield Mutation(name, file, "length", f"draw {number}", flipped(content, 0, 8, chance.random()))
        yield Mutation(name, file, "cut", f"draw {number}", cut(content, chance.random()))
    for number in range(6):
        yield Mutation(
            name, file, "data bytes", f"draw {number}", flipped(content, 8 + length, len(content), chance.random())
        )
    for tensor in [key for key in header if key != "__metadata__"]:
        for kind, changed in entries(header[tensor]):
            new = {**header, tensor: changed}
            yield Mutation(name, file, kind, tensor, lambda new=new, data=data: packed(new, data))
        kept = {key: value for key, value in header.items() if key not in (tensor, f"{tensor}.other")}
        renamed = {**kept, f"{tensor}.other": header[tensor]}
        yield Mutation(name, file, "renamed", tensor, lambda new=renamed, data=data: packed(new, data))
        for kind, made in consistent(header, data, tensor):
            yield Mutation(name, file, kind, tensor, lambda made=made: made)


def entries(entry: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A tensor's entry of a header with something changed."""
    start, end = entry["data_offsets"]
    yield "dtype", {**entry, "dtype": {"F32": "I32", "I32": "F32", "U8": "I8"}.get(entry["dtype"], "U8")}
    yield "dtype", {**entry, "dtype": "F7"}
    yield "shape", {**entry, "shape": entry["shape"][::-1]}
    yield "shape", {**entry, "shape": [*entry["shape"], 1]}
    yield "shape", {**entry, "shape": [-1, *entry["shape"][1:]]}
    yield "shape", {**entry, "shape": [10**12, 10**12]}
    yield "offsets", {**entry, "data_offsets": [start + 1, end + 1]}
    yield "offsets", {**entry, "data_offsets": [end, start]}
    yield "offsets", {**entry, "data_offsets": [start, end, end]}
    yield "entry", 3
    yield "entry", {}


def consistent(header: dict[str, Any], data: bytes, tensor: str) -> Iterator[tuple[str, bytes]]:
    """Whole files in which a tensor is smaller than it was, is left out, or holds extreme values."""
    for kind in ("half", "left out", "ones", "zeros"):
        new, parts, at = {}, [], 0
        for key, entry in sorted(
            ((k, v) for k, v in header.items() if k != "__metadata__"), key=lambda item: item[1]["data_offsets"][0]
        ):
            start, end = entry["data_offsets"]
            piece, shape = data[start:end], list(entry["shape"])
            if key == tensor:
                if kind == "left out" or (kind == "half" and (not shape or shape[0] < 2 or shape[0] % 2)):
                    continue
                if kind == "half":
                    shape[0] //= 2
                    piece = piece[: len(piece) // 2]
                else:
                    piece = (b"\xff" if kind == "ones" else b"\0") * len(piece)
            new[key] = {**entry, "shape": shape, "data_offsets": [at, at + len(piece)]}
            parts.append(piece)
            at += len(piece)
        yield f"tensor {kind}", packed(new, b"".join(parts))


def packed(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def flipped(content: bytes, start: int, end: int, seed: float) -> Callable[[], bytes]:
    def made() -> bytes:
        chance, new = random.Random(seed), bytearray(content)
        for _ in range(chance.randrange(1, 6)):
            new[chance.randrange(start, end)] ^= 1 << chance.randrange(8)
        return bytes(new)

    return made


def cut(content: bytes, seed: float) -> Callable[[], bytes]:
    return lambda: content[: int(seed * len(content))]


def verbs(folders: dict[str, Path], name: str, folder: Path, out: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is asked of a folder, by name."""
    original = folders[ORIGINALS[name]]
    some = {"text": TEXT, "windows": 2, "window": 16, "speed": False}
    yield "generate", lambda: whet.generate(folder, "ab", max_new_tokens=2, device="cpu")
    yield "compare", lambda: whet.compare(original, folder, **some)
    yield "compare as original", lambda: whet.compare(folder, original, **some)
    yield "export", lambda: whet.export(folder, out=out.with_suffix(".gguf"))
    yield "compress", lambda: whet.compress(folder, out, scheme="int8s", solver="nearest", target="whet")
    yield "inspect", lambda: whet.inspect(folder, text=TEXT, samples=2, window=16, spectra=False, device="cpu")
    yield "plan", lambda: whet.plan(folder, bits=6, text=TEXT, samples=2, window=16, target="whet", device="cpu")


def try_one(folders: dict[str, Path], mutation: Mutation, tally: Tally, limit: int, work: Path, long: bool) -> None:
    """Every verb on a copy of the folder with one thing changed."""
    shutil.rmtree(work, ignore_errors=True)
    folder, out = work / "folder", work / "out"
    shutil.copytree(folders[mutation.folder], folder)
    content = mutation.content()
    before = (folder / mutation.file).read_bytes()
    if content is None:
        (folder / mutation.file).unlink()
    else:
        (folder / mutation.file).write_bytes(content)
    hashed = (folder / MANIFEST).is_file()
    if hashed:
        verdict = call(mutation, "verify", lambda: whet.verify(folder), tally, limit)
        if mutation.file != MANIFEST and content != before and (verdict is None or verdict["verdict"] != "fail"):
            defect(tally, mutation, "verify", "finds nothing", "")
    if hashed and mutation.file != MANIFEST:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        told["files"] = hashed_files(folder)
        (folder / MANIFEST).write_text(json.dumps(told), encoding="utf-8")
    for verb, does in verbs(folders, mutation.folder, folder, out):
        if verb in ("inspect", "plan") and mutation.folder in SCORED and not long:
            continue
        call(mutation, verb, does, tally, limit)


class TooSlow(BaseException):
    """A call that is not over in time."""


def call(mutation: Mutation, verb: str, does: Callable[[], Any], tally: Tally, limit: int) -> Any:
    """One call; anything but an end in time, good or by a WhetError that can be read, is a defect."""

    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    kind = f"{told_as(mutation.file)}: {mutation.kind}"
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            result = does()
        tally.calls[kind, "well"] += 1
        return result
    except WhetError as error:
        tally.calls[kind, "told"] += 1
        said = str(error)
        if not 20 < len(said) < LONGEST or "Traceback" in said or "0x7f" in said:
            defect(tally, mutation, verb, "cannot be read", said[:300])
    except TooSlow:
        tally.calls[kind, "slow"] += 1
        defect(tally, mutation, verb, f"takes over {limit} s", "")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        tally.calls[kind, "internal"] += 1
        defect(tally, mutation, verb, place(error), traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def place(error: BaseException) -> str:
    """Which error, and the last line of whet that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}whet{os.sep}" in frame.filename]
    at = own[-1] if own else frames[-1]
    return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno} ({str(error)[:80]!r})"


def defect(tally: Tally, mutation: Mutation, verb: str, what: str, trace: str) -> None:
    key = (what.partition(" (")[0], verb, told_as(mutation.file))
    tally.defects[key] += 1
    at = f"{mutation.folder}/{mutation.file}, {mutation.kind} at {mutation.where}"
    tally.first.setdefault(key, f"{at}: {what}\n{trace}")


def show(tally: Tally, trace: bool) -> None:
    """Calls by kind of mutation and how they ended, and every defect with its first mutation."""
    kinds = sorted({kind for kind, _ in tally.calls})
    print("| mutation | calls | end well | told | internal | slow |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    total: Counter[str] = Counter()
    for kind in kinds:
        row = {end: tally.calls[kind, end] for end in ENDS}
        total.update(row)
        print(f"| {kind} | {sum(row.values())} | {' | '.join(map(str, row.values()))} |")
    print(f"| all | {sum(total.values())} | {' | '.join(str(total[end]) for end in ENDS)} |")
    print(f"\n{sum(tally.defects.values())} defects at {len(tally.defects)} places")
    for key, count in tally.defects.most_common():
        first, _, more = tally.first[key].partition("\n")
        print(f"- {count} × {key[1]}: {first}")
        if trace and more:
            print(more)


if __name__ == "__main__":
    sys.exit(main())
