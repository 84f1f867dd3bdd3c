"""A twin and its order: what every timing in llama.cpp is asked with, and what is read off it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from whet.checkpoint.memory import available_memory
from whet.grids import BLOCKS
from whet.timing.running import DECODE, PROMPT, ROUNDS
from whet.timing.twin import MOST, Twin, twin_of

BASE = "Q4_K"  # the type that others are timed beside: fast, and what most mixes are near
SIXTEEN = ("F16", "BF16")
TYPES = (*SIXTEEN, *BLOCKS)
PASSIVE, ACTIVE = "PASSIVE", "ACTIVE"
# Of files that differ from the base in one class of shapes alone.
PART_ROUNDS, PART_PROMPT = 3, 16
_FLOOR, _OF_RANGE = 0.005, 0.4  # three rounds of a normal error have a range of 1.7 deviations
_SHARE = 6  # a twin takes at most one part in so many of the free memory


def fitting_twin(model: Path) -> Twin:
    """The model's twin, of as many blocks as the machine has room for."""
    room = available_memory()
    return twin_of(model, MOST if room is None else max(1 << 24, min(MOST, room // _SHARE)))


def order_of(model: Path, twin: Twin, threads: int, base: str = BASE) -> dict[str, Any]:
    """What the timing process is asked, without variants. base: the type of the twin that others take turns with."""
    return {
        "model": str(model),
        "depth": twin.depth,
        "threads": threads,
        "rounds": ROUNDS,
        "prompt": PROMPT,
        "decode": DECODE,
        "base": twin.types(base),
    }


def ratios(timed: Mapping[str, Any], what: str) -> list[float]:
    """Of each round, seconds over the base's."""
    return [own / base for own, base in zip(timed[what]["own"], timed[what]["base"], strict=True)]


def ratio(timed: Mapping[str, Any], what: str = "decode") -> float:
    """The median of the rounds' ratios to the base."""
    return median(ratios(timed, what))


def error_of(timed: Mapping[str, Any], what: str = "decode") -> float:
    """About the standard error of `ratio`, from the range of the rounds; a machine is never better than half a per
    cent."""
    turns = ratios(timed, what)
    return max(_FLOOR, _OF_RANGE * (max(turns) - min(turns)))
