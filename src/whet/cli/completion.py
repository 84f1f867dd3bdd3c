"""What a shell completes where an option or argument has few values. (Importing it is light: a shell waits for it.)"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Complete = Callable[[str], list[str]]
# Of recipes, with one quantize and with several steps; named here, as what reads them is slow to import.
PRESETS, RUNS = "w8, w4, balanced, smallest", "safe, fastest, on-device, distil"


def among(values: str) -> Complete:
    """Completes one of `values`, with commas between."""
    names = values.split(", ")

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def models(incomplete: str) -> list[str]:
    """The embedded model where its name is begun; else nothing, and the shell completes paths."""
    return ["starter"] if incomplete and "starter".startswith(incomplete) else []


def aspects(incomplete: str) -> list[str]:
    """The names of aspects after those that were typed."""
    from whet.measure.aspects import KNOWN

    before, comma, begun = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in (*KNOWN, "all", "standard", "none") if name.startswith(begun)]


def limits_of(incomplete: str) -> list[str]:
    """The name of a limit, up to its value."""
    from whet.measure.figures import LIMITS

    return [f"{name}=" for name in LIMITS if name.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Presets with one quantize, and the recipes and folders that go on from what was typed."""
    return [*among(PRESETS)(incomplete), *_files(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Every preset, and those too."""
    return [*among(f"{PRESETS}, {RUNS}")(incomplete), *_files(incomplete)]


def _files(incomplete: str) -> list[str]:
    """Recipes and folders that go on from what was typed."""
    place, _, begun = incomplete.rpartition("/")
    try:
        beside = sorted(Path(f"{place}/" if "/" in incomplete else ".").iterdir())
    except OSError:
        beside = []
    before = f"{place}/" if "/" in incomplete else ""
    return [
        f"{before}{path.name}{'/' if path.is_dir() else ''}"
        for path in beside
        if path.name.startswith(begun) and (begun or not path.name.startswith("."))
        if path.is_dir() or path.suffix in (".yaml", ".yml")
    ]
