"""The choice of aspects, and what the seam promises: limits on them are judged, material for others is refused."""

from __future__ import annotations

import pytest

from whet.errors import UsageError
from whet.measure.aspects import KNOWN, chosen
from whet.measure.limits import resolve_limits

STANDARD = [name for name, aspect in KNOWN.items() if aspect.standard]


def names(asked: list[str] | None) -> list[str]:
    return [aspect.name for aspect in chosen(asked)]


def test_what_is_measured() -> None:
    first = next(iter(KNOWN))
    assert names(None) == names(["standard"]) == STANDARD
    assert names(["all"]) == list(KNOWN) and names(["none"]) == []
    assert names([f"-{first}"]) == [name for name in STANDARD if name != first]
    assert names(["all", f"-{first}"]) == [name for name in KNOWN if name != first]
    assert names(["none", first]) == [first] == names([f" {first} "])


def test_a_typo_is_answered() -> None:
    with pytest.raises(UsageError, match="Did you mean acceptance"):
        chosen(["acceptence"])


def test_a_limit_on_what_is_not_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="--measure acceptance"):
        resolve_limits({"acceptance.share": 0.9}, has_skills=False)
    assert resolve_limits({"acceptance.share": 0.9}, False, aspects=["acceptance"])["acceptance.share"] == 0.9
