"""How many weights each block loses where they do not all lose the same: those with more outliers fewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from whet.errors import UsageError, did_you_mean

UNIFORM, OWL = ALLOCATIONS = ("uniform", "owl")
OUTLIER = 5  # times the mean of its block, above which a weight's score is an outlier: M of the paper
SPREAD = Fraction(8, 100)  # half the difference between the blocks that lose most and least: λ of the paper


@dataclass(frozen=True)
class Counted:
    """Of a block, how many weights have masks, and how many of those are outliers."""

    weights: int
    outliers: int


def check_allocation(name: str) -> None:
    """Raises UsageError with a did-you-mean."""
    if name not in ALLOCATIONS:
        raise UsageError(
            "Allocation {name!r} is not known.{near} Allocations: {known}.",
            name=name,
            near=did_you_mean(name, ALLOCATIONS),
            known=", ".join(ALLOCATIONS),
        )


def shares_by_outliers(blocks: Sequence[Counted], share: Fraction) -> list[Fraction]:
    """The share of its weights that each block loses, `share` of all weights together (OWL, Yin et al. 2024, arXiv
    2310.05175, with its λ).

    The block with the highest share of outliers loses 2λ less than that with the lowest, and others in between in
    proportion. No block comes nearer to nothing, or to everything, than half the way from `share`: where it would,
    all differ less.
    """
    outliers = [Fraction(block.outliers, block.weights) for block in blocks]
    least, most = min(outliers), max(outliers)
    if least == most:
        return [share] * len(blocks)
    less = [2 * SPREAD * (one - least) / (most - least) for one in outliers]
    total = sum(block.weights for block in blocks)
    mean = sum((block.weights * one for block, one in zip(blocks, less, strict=True)), Fraction()) / total
    room = min(share / 2 / (max(less) - mean), (1 - share) / 2 / mean, Fraction(1))
    return [share - room * (one - mean) for one in less]
