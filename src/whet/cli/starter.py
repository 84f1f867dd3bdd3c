"""What the command line adds where the model is the embedded one: its name, and its own text and skills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whet.cli.options import trusted
from whet.messages import Message
from whet.paths import check_file, check_model, check_text
from whet.steps.options import SAMPLES

NAME = "starter"


def resolve(model: str | Path) -> Path:
    """The folder meant by `model`; `starter` is the embedded model unless a folder of that name is here.

    Raises UsageError for a path that leads nowhere, before anything slow is imported.
    """
    if str(model) == NAME and not Path(NAME).exists():
        from whet import starter

        return starter.path()
    check_model(model)
    return Path(model)


def is_starter(folder: Path) -> bool:
    """Whether `folder` holds the embedded model, one trained again or one made lighter: they share the tokenizer."""
    theirs = folder / "tokenizer.json"
    if not theirs.is_file():
        return False
    from whet import starter

    ours = starter.path() / "tokenizer.json"
    return ours.is_file() and ours.read_bytes() == theirs.read_bytes()


def calibration(samples: int, seed: int) -> list[str]:
    """Documents like those the model was trained on, more than `samples` windows need: a fifth is kept from solving."""
    from whet import starter

    return starter.documents(seed, max(200, 6 * samples))


def check_material(text: str | Path | None = None, skills: str | Path | None = None) -> None:
    """Raises UsageError for text or questions that are not there, before anything slow is imported."""
    if text is not None:
        check_text(text)
    if skills is not None:
        check_file(skills, Message("skills"))


def prepared(model: str | Path, trust: bool, options: dict[str, Any], reads: bool = True) -> Path:
    """The folder meant by `model`, checked before anything slow is imported. Of the embedded model, `options` are given
    its own text where they name none. trust: whether its code may run. reads: whether text is read at all."""
    folder = resolve(model)
    trusted(folder, trust)
    check_material(options["text"])
    if reads and options["text"] is None and is_starter(folder):
        options["text"] = calibration(options["samples"] or SAMPLES, options["seed"])
    return folder
