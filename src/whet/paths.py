"""What a path or a name on the hub stands for, and whether a path may be written. Importing this is light, so that a
wrong path is told at once."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from pathlib import Path

from whet.errors import MachineError, UsageError, did_you_mean

MODEL_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SHOWN = 80  # letters of a path that cannot be one
TEXT_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?")
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
_LONGEST = 240  # bytes of a name: file systems take 255, and a temporary file beside it has a few more


def find_folder(path: str | Path) -> Path:
    """The local folder of a path or hub name. Raises UsageError when there is none."""
    folder = Path(path)
    check_possible(folder)
    if folder.is_dir():
        return folder
    if folder.suffix.lower() in (".gguf", ".onnx", ".xml") and folder.is_file():
        raise UsageError(
            "{folder} is a finished file, to be compared and asked to generate. Give the folder it was made from.",
            folder=folder,
        )
    if folder.exists():
        if (folder.parent / "config.json").is_file():
            raise UsageError("{file} is a file. Give the folder it is in: {folder}.", file=folder, folder=folder.parent)
        raise UsageError("{folder} is a file. Give the folder that holds config.json and the weights.", folder=folder)
    if MODEL_ON_HUB.fullmatch(str(path)) and not folder.parent.is_dir():
        return _download(str(path))
    parent = folder.parent
    near = did_you_mean(folder.name, [p.name for p in parent.iterdir() if p.is_dir()]) if parent.is_dir() else ""
    raise UsageError(
        "{folder} does not exist.{near} Give a model folder, or a hub name such as organisation/model.",
        folder=folder,
        near=near,
    )


def check_model(path: str | Path) -> None:
    """Raises UsageError for a model that is neither here nor could be on the hub."""
    check_possible(path)
    if not Path(path).exists() and (Path(path).parent.is_dir() or not MODEL_ON_HUB.fullmatch(str(path))):
        find_folder(path)


def check_text(source: str | Path) -> None:
    """Raises UsageError for text that is neither here nor could be a data set of the hub."""
    check_possible(source)
    if not Path(source).exists() and not TEXT_ON_HUB.fullmatch(str(source)):
        raise no_text(source)


def check_file(path: str | Path, what: str) -> None:
    """Raises UsageError where there is no file `path` of `what`."""
    path = Path(path)
    check_possible(path)
    if not path.is_file():
        raise UsageError("{path}: no such file of {what}.{near}", path=path, what=what, near=_near(path))


def check_output(path: str | Path, *inputs: object) -> None:
    """Raises UsageError or MachineError unless a file may be written at `path`, or replaced: before anything long.

    No file of a model's folder is replaced, nor one that is read. inputs: folders and files that are read; what is no
    path among them does not matter.
    """
    path = Path(path)
    check_possible(path)
    if len(os.fsencode(path.name)) > _LONGEST:
        raise UsageError("{name}… is too long a name. Give a shorter one.", name=path.name[:40])
    if path.is_dir():
        raise UsageError("{path} is a folder. Name a file in it.", path=path)
    if path.exists() and not path.is_file():
        raise UsageError("{path} is a device, which is not replaced. Name a file.", path=path)
    if not path.parent.is_dir():
        raise UsageError(
            "{file} cannot be made: {folder} is no folder. Make it first, or name another file.",
            file=path,
            folder=path.parent,
        )
    if path.suffix.lower() in _WEIGHTS and not path.exists() and path.suffix.lower() != ".gguf":
        raise UsageError("{path} has the name of a file of weights. Name another file.", path=path)
    paths = [Path(one) for one in inputs if isinstance(one, (str, Path))]
    if path.exists():
        if any(_is_file(one) and path.samefile(one) for one in paths):
            raise UsageError("{path} is read here, so it is not written over. Name another file.", path=path)
        folders = [path.parent, *(one for one in paths if one.is_dir())]
        if path.suffix.lower() in _WEIGHTS or any(_is_of_model(path, folder) for folder in folders):
            raise UsageError("{path} is a file of a model, and no output replaces one. Name another file.", path=path)
    _check_writable(path, path.parent)


def check_possible(path: str | Path) -> None:
    """Raises UsageError for a path that no file can have: a link to itself, or a name too long, as text itself is."""
    try:
        os.stat(path)
    except (ValueError, OSError) as error:  # a zero byte is a ValueError
        code = getattr(error, "errno", errno.EINVAL)
        if code not in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            return  # not there, or not to be read: whoever opens it tells
        shown = str(path) if len(str(path)) <= _SHOWN else f"{str(path)[:_SHOWN]} …"
        why = getattr(error, "strerror", None) or error
        raise UsageError("{path!r} is no path that a file can have ({why}). Check it.", path=shown, why=why) from error


def check_out(out: str | Path, original: str | Path) -> None:
    """Raises UsageError for a folder to write that cannot be made, or that lies inside the original's, MachineError for
    one that may not be written into."""
    out = Path(out)
    check_possible(out)
    check_possible(original)
    for place in (out, *out.parents):
        if place.is_symlink() and not place.exists():
            raise UsageError("{out} cannot be made: {place} is a link that leads nowhere.", out=out, place=place)
    if Path(original).is_dir() and Path(os.path.realpath(original)) in Path(os.path.realpath(out)).parents:
        raise UsageError(
            "{out} is inside {original}, the original's own folder, which is never changed. Name another folder.",
            out=out,
            original=original,
        )
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError("{path} is a file. Name a folder for the lighter model.", path=there)
    _check_writable(out, there)


def _check_writable(path: Path, folder: Path) -> None:
    """Raises MachineError where nothing can be made in `folder`."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MachineError(
            "{path} cannot be written ({error}). Choose a folder you may write to.",
            path=path,
            error=os.strerror(error.errno or 0),
        ) from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # text that was given as it is
        return False


def _is_of_model(path: Path, folder: Path) -> bool:
    """Whether the file `path` belongs to the model in `folder`: of a lighter one what its manifest lists."""
    path, folder = path.parent.resolve() / path.name, folder.resolve()
    if not path.is_relative_to(folder):
        return False
    name, manifest = path.relative_to(folder).as_posix(), folder / "whet.json"
    if manifest.is_file():
        try:
            return name == manifest.name or name in json.loads(manifest.read_bytes())["files"]
        except (ValueError, RecursionError, KeyError, TypeError, OSError):
            return True
    return (folder / "config.json").is_file() and any(one.suffix.lower() in _WEIGHTS for one in folder.iterdir())


def no_text(source: str | Path) -> UsageError:
    """The error of text that is not there."""
    return UsageError(
        "{source}: no such file.{near} Check the path of the text.", source=source, near=_near(Path(source))
    )


def _near(path: Path) -> str:
    """The file beside a wrong path that was probably meant."""
    return did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md", "LICENSE*"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except RepositoryNotFoundError as error:
        raise UsageError(
            "The hub has no model {name} that you may read. Check the name, or log in.", name=name
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise MachineError(
            "{name} is not a folder here, and the hub could not be asked ({error}). Check the path, or the network.",
            name=name,
            error=type(error).__name__,
        ) from error
