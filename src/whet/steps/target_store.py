"""A folder of what was drawn from a teacher, so that it runs once: rows of text, and at each position a few tokens.

    targets.json           of which teacher, tokenizer and text, and how it was drawn; `parts` when it is complete
    windows.safetensors    the rows of tokens that are trained on, and the held-out windows
    part-00000.safetensors sizes, entries and entropy of some rows (`whet.distillation.Drawn`), one behind the other
    held-out.safetensors   the same of the held-out windows, with log_p of every entry and the likeliest token, top

Each file is written whole or not at all, and what is drawn in a row depends on its number alone, so drawing goes on
where it was stopped.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint import load_tokenizer, read_header, read_tensor, sha256
from whet.errors import UsageError

ABOUT, WINDOWS, HELD_OUT = "targets.json", "windows.safetensors", "held-out.safetensors"
VERSION = 1


class TargetStore:
    """The folder, and what it says of itself (`about`, empty where nothing was begun)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.about = self._about()

    def _about(self) -> dict[str, Any]:
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError("{folder} is a file. Name a folder for the teacher's targets.", folder=self.folder)
        file = self.folder / ABOUT
        if not file.exists():
            other = next(iter(self.folder.iterdir()), None) if self.folder.exists() else None
            if other is not None and other.name != WINDOWS:
                raise UsageError(
                    "{folder} holds {name} and no targets of a teacher. Name a new folder, or one that whet distill "
                    "--targets has made.",
                    folder=self.folder,
                    name=other.name,
                )
            return {}
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            known = about["version"] == VERSION
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise UsageError(
                "{file} is not one that this version of whet reads. Name another folder, and the targets are made "
                "anew.",
                file=file,
            )
        return dict(about)

    @property
    def complete(self) -> bool:
        """Whether everything was drawn."""
        return "parts" in self.about

    def windows(self) -> tuple[list[Tensor], list[Tensor]]:
        """Rows that are trained on, and held-out windows."""
        stored = read_header(self.folder / WINDOWS)
        row, held_out = (
            [read_tensor(stored[name]).long() for name in sorted(stored) if name.startswith(kind)]
            for kind in ("row", "held-out")
        )
        return row, held_out

    def digest(self) -> str:
        """SHA-256 of all that was drawn."""
        whole = hashlib.sha256()
        for file in [*(self.part(number) for number in range(self.about["parts"])), self.folder / HELD_OUT]:
            if not file.exists():
                if file.name == HELD_OUT:
                    continue  # of text without any
                raise UsageError(
                    "{folder}: {file} of the teacher's targets is missing. Remove the folder, and they are made anew.",
                    folder=self.folder,
                    file=file.name,
                )
            whole.update(sha256(file).encode())
        return whole.hexdigest()

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:05d}.safetensors"

    @functools.cached_property
    def rows(self) -> Drawers:
        """What was drawn in the rows, in memory."""
        files = [self.part(number) for number in range(self.about["parts"])]
        return Drawers([_read(file) for file in files], self.about["lengths"])

    @functools.cached_property
    def held_out(self) -> Drawers:
        """What was drawn in held-out windows."""
        return Drawers([_read(self.folder / HELD_OUT)], self.about["held_out"])


class Drawers:
    """What was drawn in rows of known `lengths`, by the numbers of rows."""

    def __init__(self, parts: Sequence[Mapping[str, Tensor]], lengths: Sequence[int]) -> None:
        self.found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        self.at = [0, *itertools.accumulate(lengths)]
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), self.found["sizes"].long().cumsum(0)])
        self.entry = ends[torch.tensor(self.at)].tolist()

    def of(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Fields of a batch of these rows, one behind the other."""
        found = {}
        for name, every in self.found.items():
            at = self.entry if name in ("entries", "log_p") else self.at
            found[name] = torch.cat([every[at[number] : at[number + 1]] for number in numbers])
        return found


def digest_of(*windows: Sequence[Tensor]) -> str:
    """SHA-256 of lists of windows."""
    whole = hashlib.sha256()
    for some in windows:
        for window in some:
            whole.update(window.long().numpy().tobytes() + b"|")
        whole.update(b"||")
    return whole.hexdigest()


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of a tokenizer's tokens with their numbers."""
    words = sorted(load_tokenizer(folder).get_vocab().items())
    return hashlib.sha256(json.dumps(words, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def _read(file: Path) -> dict[str, Tensor]:
    return {name: read_tensor(info) for name, info in read_header(file).items()}
