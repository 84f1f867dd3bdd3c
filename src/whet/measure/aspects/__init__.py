"""The aspects that a comparison can measure, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from whet.errors import UsageError, did_you_mean
from whet.measure.aspects.acceptance import ACCEPTANCE
from whet.measure.aspects.aspect import Aspect, Case, Example, Reading, Sides, found
from whet.measure.aspects.belief import BELIEF
from whet.measure.aspects.calibration import CALIBRATION
from whet.measure.aspects.refusal import REFUSAL
from whet.measure.aspects.susceptibility import SUSCEPTIBILITY
from whet.measure.aspects.thinking import THINKING

__all__ = ["KNOWN", "Aspect", "Case", "Example", "Reading", "Sides", "chosen", "found"]

KNOWN = {aspect.name: aspect for aspect in (ACCEPTANCE, CALIBRATION, BELIEF, SUSCEPTIBILITY, REFUSAL, THINKING)}


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


def _must_be_known(name: str, many: Sequence[str] | None) -> None:
    if many is None and name not in KNOWN:
        raise UsageError(
            "There is nothing called {name} to measure.{near} It is one of {known}, or all, standard or none.",
            name=name,
            near=did_you_mean(name, [*KNOWN, "all", "standard", "none"]),
            known=", ".join(KNOWN),
        )
