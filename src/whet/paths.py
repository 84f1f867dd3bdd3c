"""What a path or a name on the hub stands for. Importing this is light, so that a wrong path is told at once."""

from __future__ import annotations

import re
from pathlib import Path

from whet.errors import MachineError, UsageError, did_you_mean

MODEL_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TEXT_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?")


def find_folder(path: str | Path) -> Path:
    """The local folder of a path or hub name. Raises UsageError when there is none."""
    folder = Path(path)
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
    if not Path(path).exists() and (Path(path).parent.is_dir() or not MODEL_ON_HUB.fullmatch(str(path))):
        find_folder(path)


def check_text(source: str | Path) -> None:
    """Raises UsageError for text that is neither here nor could be a data set of the hub."""
    if not Path(source).exists() and not TEXT_ON_HUB.fullmatch(str(source)):
        raise no_text(source)


def check_file(path: str | Path, what: str) -> None:
    """Raises UsageError where there is no file `path` of `what`."""
    path = Path(path)
    if not path.is_file():
        raise UsageError("{path}: no such file of {what}.{near}", path=path, what=what, near=_near(path))


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
