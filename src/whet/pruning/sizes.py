"""Sizes of models that are cut from a sorted one: shares of the blocks' parameters that stay."""

from __future__ import annotations

from fractions import Fraction

from whet.errors import UsageError
from whet.pruning.patterns import SHARE


def parse_size(text: str | float) -> Fraction:
    """`60%` or `0.6`: more than nothing, and at the most all. Raises UsageError for anything else."""
    match = SHARE.fullmatch(str(text).strip())
    size = None if match is None else Fraction(match[1]) / (100 if match[2] else 1)
    if size is None or size <= 0:
        raise UsageError(
            "{text} is no size. Give the share of the blocks' parameters that stays: 60%, or 0.6.", text=text
        )
    if size > 1:
        raise UsageError(
            "{text} is more than the model has. Give the share of the blocks' parameters that stays, 100% at the most.",
            text=text,
        )
    return size


def parse_sizes(text: str) -> tuple[Fraction, ...]:
    """`90%,60%`, the largest first. Raises UsageError for what is no size, for all of a model, and for none."""
    found = sorted({parse_size(part) for part in text.split(",") if part.strip()}, reverse=True)
    if not found or found[0] == 1:
        raise UsageError("{text}: no sizes of smaller models. Give some with commas between: 80%,60%.", text=text)
    return tuple(found)
