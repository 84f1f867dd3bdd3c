"""The aspects that a comparison can measure, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from whet.errors import UsageError, did_you_mean
from whet.measure.aspects.acceptance import ACCEPTANCE
from whet.measure.aspects.aspect import Aspect, Case, Example, Reading, Sides, found
from whet.measure.aspects.belief import BELIEF
from whet.measure.aspects.calibration import CALIBRATION
from whet.measure.aspects.context import CONTEXT
from whet.measure.aspects.energy import ENERGY
from whet.measure.aspects.folder import FOLDER
from whet.measure.aspects.generation import GENERATION
from whet.measure.aspects.knowledge import KNOWLEDGE
from whet.measure.aspects.languages import LANGUAGES_KEPT
from whet.measure.aspects.packed import PACKED
from whet.measure.aspects.refusal import REFUSAL
from whet.measure.aspects.rounding import ROUNDING
from whet.measure.aspects.susceptibility import SUSCEPTIBILITY
from whet.measure.aspects.thinking import THINKING
from whet.measure.records import Material
from whet.paths import check_file

__all__ = [
    "KNOWN",
    "Aspect",
    "Case",
    "Example",
    "Reading",
    "Sides",
    "check_files_of_aspects",
    "chosen",
    "files_of",
    "found",
]

KNOWN = {
    aspect.name: aspect
    for aspect in (
        *(ACCEPTANCE, CALIBRATION, BELIEF, SUSCEPTIBILITY, REFUSAL, THINKING, ENERGY, PACKED),
        *(FOLDER, GENERATION, LANGUAGES_KEPT, KNOWLEDGE, CONTEXT, ROUNDING),
    )
}


def chosen(asked: Iterable[str] | None) -> list[Aspect]:
    """The aspects that `measure` names, in the order of KNOWN; None: the standard ones.

    `all` is every one, `standard` the standard ones, `none` none; a name with `-` before it is left out of what stands
    before it, or of the standard ones where nothing does. Raises UsageError for an unknown name.
    """
    names = [name.strip() for name in asked or ("standard",) if name.strip()]
    standard = [name for name, aspect in KNOWN.items() if aspect.standard]
    taken: set[str] = set(standard) if names and names[0].startswith("-") else set()
    for name in names:
        many = {"all": list(KNOWN), "standard": standard, "none": []}.get(name.removeprefix("-"))
        _must_be_known(name.removeprefix("-"), many)
        these = [name.removeprefix("-")] if many is None else many
        taken = taken.difference(these) if name.startswith("-") else taken.union(these)
    return [aspect for name, aspect in KNOWN.items() if name in taken]


def check_files_of_aspects(files: Mapping[str, Material]) -> None:
    """Raises UsageError where material is for no aspect, or is a file that is not there."""
    for name, file in files.items():
        _must_be_known(name, None)
        if isinstance(file, str | Path):
            check_file(file, name)


def files_of(aspects: Sequence[Aspect], files: Mapping[str, str | Path]) -> dict[str, str | Path]:
    """The files of these aspects among others."""
    return {aspect.name: files[aspect.name] for aspect in aspects if aspect.name in files}


def _must_be_known(name: str, many: Sequence[str] | None) -> None:
    if many is None and name not in KNOWN:
        raise UsageError(
            "There is nothing called {name} to measure.{near} It is one of {known}, or all, standard or none.",
            name=name,
            near=did_you_mean(name, [*KNOWN, "all", "standard", "none"]),
            known=", ".join(KNOWN),
        )
