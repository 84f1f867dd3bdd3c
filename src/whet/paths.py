"""What a path or a name on the hub stands for. Importing this is light, so that a wrong path is told at once."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from whet.errors import MachineError, UsageError, did_you_mean

MODEL_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SHOWN = 80  # letters of a path that cannot be one
TEXT_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?")


def find_folder(path: str | Path) -> Path:
    """The local folder of a path or hub name. Raises UsageError when there is none."""
    folder = Path(path)
    check_possible(folder)
    if folder.is_dir():
        return folder
    if folder.suffix.lower() == ".gguf" and folder.is_file():
        raise UsageError(
            "{folder} is a finished file, to be compared and asked to generate. Give the folder it was made from.",
            folder=folder,
        )
    if folder.exists():
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
    """Raises UsageError for a folder to write that cannot be made, or that lies inside the original's."""
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
