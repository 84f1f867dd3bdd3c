"""`verify`: whether the files of a folder that whet wrote are those that were written.

`whet.json` holds size and SHA-256 of every file. That finds damage and mix-ups. Whoever can write into the folder can
also write another `whet.json`; compare its own hash with one from elsewhere to find that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.checkpoint.beside import inside, is_read
from whet.checkpoint.files import sha256
from whet.checkpoint.folder import read_whet
from whet.checkpoint.gguf import ADAPTER_SUFFIX
from whet.checkpoint.hashes import Hashes
from whet.checkpoint.manifest import MANIFEST
from whet.checkpoint.model_files import is_graph, numbers_of
from whet.errors import UsageError, verb
from whet.events import OnEvent, Stage, ignore, note_event
from whet.messages import Message, first_of
from whet.paths import find_folder

VERSION = 1
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf", ".onnx")
_LONG = 1 << 30  # bytes whose hash takes a second or several
_WHY = {
    "missing": Message("missing"),
    "outside": Message("a link out of the folder"),
    "size": Message("of another size"),
    "changed": Message("changed"),
    "unlisted": Message("not listed"),
}


@verb
def verify(folder: str | Path, *, on_event: OnEvent = ignore) -> dict[str, Any]:
    """Read every file that whet.json of `folder` names, whatever was found before, and compare size and SHA-256.

    Returns plain JSON (`"format": "whet.verify"`, `"version": 1`): `folder`; `verdict`, `pass` or `fail`; `sha256`, of
    whet.json itself; and `files`, a list of `name`, `state`, `bytes` (None where there is none) and `listed` (bytes by
    whet.json, None where it tells none). state: `ok` (of what is listed without a hash: it is there), `missing`,
    `outside` (a link out of the folder), `size`, `changed` (the size is right, the hash is not), or `unlisted`, which
    are files of weights that whet.json does not name. Raises UsageError for a folder without whet.json, or one that
    lists no files.
    """
    path = find_folder(folder)
    listed = _listed(path)
    if not listed:
        raise UsageError(
            "{folder} has no {manifest} that lists files, so there is nothing to verify it by: whet did not write it, "
            "or the run is not finished. Give a finished folder that whet wrote.",
            folder=path,
            manifest=MANIFEST,
        )
    sizes = [float(1 + (about.get("bytes") or 0)) for about in listed.values()]
    hashes, stage = Hashes(), Stage(on_event, "verify files", len(listed), sizes=sizes)
    found = []
    for name, about in listed.items():
        found.append(_examined(path, name, about, hashes, again=True))
        stage.step(unit=name)
    hashes.keep()
    found += [
        {"name": name, "state": "unlisted", "bytes": (path / name).stat().st_size, "listed": None}
        for name in _unlisted(path, listed, _WEIGHTS)
    ]
    return {
        "format": "whet.verify",
        "version": VERSION,
        "folder": str(path),
        "verdict": "pass" if all(file["state"] == "ok" for file in found) else "fail",
        "sha256": sha256(path / MANIFEST),
        "files": found,
    }


def check_files(model: str | Path, on_event: OnEvent = ignore) -> None:
    """Raises UsageError where a file that is read of a model is not what whet wrote: weights, configs and tokenizer of
    a folder with whet.json, or a finished file that lies in such a folder, with what it reads beside it. Files are
    hashed once until they change. What whet did not write has no hashes.
    """
    path, given = Path(model), Path(model)
    if given.is_file():
        path = given.parent
    if not path.is_dir():
        return
    listed = _listed(path)
    if path == given:
        read = {name: about for name, about in listed.items() if is_read(Path(name).name) or len(Path(name).parts) > 1}
    else:
        alike = (given.name, given.stem + ADAPTER_SUFFIX)
        read = {name: listed[name] for name in alike if name in listed}
        if is_graph(given):  # its tokenizer and config lie beside it
            beside = {numbers_of(given).name}
            read |= {n: about for n, about in listed.items() if n in beside or (is_read(n) and not _of_folder(n))}
    if not read:
        return
    hashes = Hashes()
    there = [path / name for name in read if (path / name).is_file()]
    if (size := sum(map(hashes.unknown, there))) > _LONG:
        about_size = Message("reading {size:.1f} GB of {folder} to check its files", size=size / 1e9, folder=path)
        on_event(note_event(about_size))
    found = [_examined(path, name, about, hashes) for name, about in read.items()]
    hashes.keep()
    wrong = [
        Message("{name} ({why})", name=one["name"], why=_WHY[one["state"]]) for one in found if one["state"] != "ok"
    ]
    unlisted = _unlisted(path, listed, (".safetensors", ".safetensors.index.json"))
    wrong += [Message("{name} ({why})", name=name, why=_WHY["unlisted"]) for name in unlisted]
    if wrong:
        raise UsageError(
            "{folder} is not what whet wrote, by the sizes and hashes in {manifest}: {files}. Copy or download the "
            "folder again, or make it anew; whet verify {folder} tells of every file.",
            folder=path,
            manifest=MANIFEST,
            files=first_of(wrong, 5),
        )


def _of_folder(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    manifest = read_whet(folder)
    return {} if manifest is None else manifest["files"]


def _examined(
    folder: Path, name: str, about: Mapping[str, Any], hashes: Hashes, *, again: bool = False
) -> dict[str, Any]:
    """One file beside what whet.json says of it."""
    file = folder / name
    told = {"name": name, "state": "missing", "bytes": None, "listed": about.get("bytes")}
    if not file.is_file():
        return told
    if not inside(folder, file):
        return told | {"state": "outside"}
    size = file.stat().st_size
    if about.get("sha256") is None:
        return told | {"state": "ok", "bytes": size}
    if size != about["bytes"]:
        return told | {"state": "size", "bytes": size}
    same = hashes.of(file, again=again) == about["sha256"]
    return told | {"state": "ok" if same else "changed", "bytes": size}


def _unlisted(folder: Path, listed: Mapping[str, Any], endings: tuple[str, ...]) -> list[str]:
    """Names of files of weights that a loader may find and whet did not write."""
    names = (file.name for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return sorted(name for name in names if name.endswith(endings) and name not in listed)
