"""A curated folder: documents as JSON lines, a data card, what was removed (by digest, never by text), a manifest.

    text-00001-of-00002.jsonl   {"text", "source", "language", "weight"} a line
    README.md                   the data card
    removed.json                for each document that does not stay: digest, file, its number in that, reason
    curation.json               settings, inputs and files with their hashes; there last

It is made beside its place and renamed into it when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whet import __version__
from whet.checkpoint import disk_errors, sha256, sync_folder, write_bytes, write_json
from whet.curation.card import card
from whet.curation.curate import WRITE, Curated
from whet.curation.store import REASONS
from whet.errors import UsageError
from whet.events import OnEvent, Stage
from whet.walk import locked

MANIFEST = "curation.json"
SHARD = 256 << 20  # bytes
_LOCK = ".whet"


def check_free(out: Path) -> None:
    """Raises UsageError where `out` holds anything."""
    if out.is_dir() and any(out.iterdir()):
        held = Path(min(out.iterdir()))
        if (out / MANIFEST).is_file():
            raise UsageError(
                "{out} holds a finished curation, which is not written over. Name a new folder, or remove it.", out=out
            )
        raise UsageError(
            "{out} is not empty (it holds {name}). Name a new folder, or empty this one.", out=out, name=held.name
        )


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A folder beside `out` in which it is made, held against other processes; gone at the end, however that comes.

    What a killed run left there is of no use to another, and goes.
    """
    place = Path(os.path.realpath(out))
    work = place.with_name(f".{place.name}.curating")
    lock = work / _LOCK
    missing = [folder for folder in work.parents if not folder.exists()]
    with disk_errors(work):
        lock.mkdir(parents=True, exist_ok=True)
    with locked(lock):
        try:
            for left in work.iterdir():
                if left.is_dir() and left.name != _LOCK:
                    shutil.rmtree(left)
                elif left.is_file():
                    left.unlink()
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            for folder in missing:
                with contextlib.suppress(OSError):  # what was made in it is there
                    folder.rmdir()


def write(
    found: Curated, settings: Mapping[str, Any], facts: Mapping[str, Any], work: Path, out: Path, on_event: OnEvent
) -> dict[str, Any]:
    """Write the folder; returns its manifest. settings: what was asked for. facts: of the card."""
    made = work / "made"
    with disk_errors(out):
        made.mkdir()
        _write_documents(found, made, on_event)
        _write_removed(found, made / "removed.json")
        write_bytes(made / "README.md", card(facts, settings).encode())
        files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in sorted(made.iterdir())}
        manifest = {"whet": __version__, "settings": settings, **facts, "files": files}
        write_json(made / MANIFEST, manifest)
        place = Path(os.path.realpath(out))
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(made, place)  # an empty folder that is there is replaced
        sync_folder(place.parent)
    return manifest


def _write_documents(found: Curated, made: Path, on_event: OnEvent) -> None:
    store = found.store
    files, languages = list(store.files), list(store.languages)
    numbers = store.staying
    stage = Stage(on_event, WRITE, len(numbers) + 1)
    parts = [made / "1"]
    file, size = parts[0].open("wb"), 0
    try:
        for done, number in enumerate(numbers.tolist(), 1):
            record = {
                "text": store.text(number),
                "source": files[store.sources[number]],
                "language": languages[store.language[number]],
                "weight": float(found.weights[number]),
            }
            line = _line(record)
            if size and size + len(line) > SHARD:
                file.close()
                parts.append(made / str(len(parts) + 1))
                file, size = parts[-1].open("wb"), 0
            file.write(line)
            size += len(line)
            if done % 1000 == 0:
                stage.reach(done)
        file.flush()
        os.fsync(file.fileno())
    finally:
        file.close()
    for number, part in enumerate(parts, 1):
        part.rename(made / f"text-{number:05d}-of-{len(parts):05d}.jsonl")
    stage.reach(stage.of)


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a letter of UTF-16, which JSON can spell and UTF-8 cannot
        return (json.dumps(record) + "\n").encode()


def _write_removed(found: Curated, file: Path) -> None:
    store, files = found.store, list(found.store.files)
    seen = [0] * len(files)
    with file.open("w", encoding="utf-8") as out:
        between = "[\n"
        for number, source in enumerate(store.sources.tolist()):
            seen[source] += 1
            if not store.why[number]:
                continue
            told = {
                "digest": store.digest(number),
                "source": files[source],
                "document": seen[source],
                "reason": REASONS[store.why[number]],
            }
            if number in found.like and told["reason"] == "near duplicate":
                told["like"] = store.digest(found.like[number])
            out.write(between + json.dumps(told, ensure_ascii=False))
            between = ",\n"
        out.write("[]\n" if between == "[\n" else "\n]\n")
        out.flush()
        os.fsync(out.fileno())
