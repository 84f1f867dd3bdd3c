"""What the command line adds to the choice of aspects: files of material, and the embedded model's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet.cli.starter import is_starter
from whet.messages import Message
from whet.paths import check_file


def check_files_of(given: Mapping[str, Path | None]) -> None:
    """Raises UsageError for material that is not there, before anything slow is imported."""
    for path in given.values():
        if path is not None:
            check_file(path, Message("the material"))


def chosen_with(folder: Path, measure: str | None, given: Mapping[str, Path | None]) -> dict[str, Any]:
    """`measure` and `files` of `whet.compare`. given: by aspect, a file of the command line: an aspect that has one is
    measured unless it is left out by name. Of the embedded model those without one are given its own statements."""
    names = None if measure is None else [name.strip() for name in measure.split(",")]
    files: dict[str, Any] = {}
    for name, path in given.items():
        if path is not None and f"-{name}" not in (names or ()):
            files[name] = path
            names = [*(names or ["standard"]), name]
    if is_starter(folder):
        from whet.measure.aspects import chosen
        from whet.starter import OWN

        wanted = {aspect.name for aspect in chosen(names)} - set(files)
        files |= {name: make() for name, make in OWN.items() if name in wanted}
    return {"measure": names, "files": files}
