"""Which weights of a linear are zero: how many are taken, and among which neighbours they are chosen.

A mask is bool `[out, in]`, False where the weight is 0. Of weights with equal scores the first one is taken first, so
masks are the same on every machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from whet.errors import UsageError

WITHIN = ("row", "matrix")
STAGES = 8
SHARE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(%?)")
_GROUPS = re.compile(r"([0-9]+)\s*:\s*([0-9]+)")


@dataclass(frozen=True)
class Unstructured:
    """A share of a linear's weights, rounded down to whole weights.

    within: `row`, where every row loses the same share, or `matrix`, where rows are compared with each other too.
    """

    share: Fraction
    within: str

    @property
    def name(self) -> str:
        """As a user writes it, `50%`."""
        return f"{float(100 * self.share):g}%"

    def fault(self, columns: int) -> str | None:
        """Why rows of `columns` weights cannot have it: they always can."""
        return None

    def stages(self) -> list[Unstructured]:
        """The way there: much at first, and less and less of what is dearer."""
        return [
            Unstructured(self.share * (1 - (1 - Fraction(stage, STAGES)) ** 3), self.within)
            for stage in range(1, STAGES + 1)
        ]

    def mask(self, scores: Tensor) -> Tensor:
        """The mask `[out, in]` of the highest of `scores [out, in]`."""
        compared = scores if self.within == "row" else scores.reshape(1, -1)
        return _without_lowest(compared, int(self.share * compared.shape[1])).view(scores.shape)


@dataclass(frozen=True)
class Grouped:
    """n:m: of every `size` weights that follow one another in a row, `kept` stay and the others are 0."""

    kept: int
    size: int
    within: ClassVar[str] = "group"

    @property
    def name(self) -> str:
        """As a user writes it, `2:4`."""
        return f"{self.kept}:{self.size}"

    @property
    def share(self) -> Fraction:
        """The share of all weights that is taken."""
        return 1 - Fraction(self.kept, self.size)

    def fault(self, columns: int) -> str | None:
        """Why rows of `columns` weights cannot have it, or None: kernels know no shorter last group."""
        return f"its rows of {columns} do not divide by {self.size}" if columns % self.size else None

    def stages(self) -> list[Grouped]:
        """The way there: of each group one weight after another, or, of many, several."""
        gone = self.size - self.kept
        count = min(gone, STAGES)
        return [Grouped(self.size - -(-gone * stage // count), self.size) for stage in range(1, count + 1)]

    def mask(self, scores: Tensor) -> Tensor:
        """The mask `[out, in]` of the highest of `scores [out, in]`, whose rows `size` divides."""
        groups = scores.reshape(-1, self.size)
        return _without_lowest(groups, self.size - self.kept).view(scores.shape)


Pattern = Unstructured | Grouped


def _without_lowest(scores: Tensor, count: int) -> Tensor:
    """bool like `scores [rows, n]`, False at the `count` lowest of each row, of equal ones the first."""
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    border = scores.kthvalue(count, dim=1, keepdim=True).values
    below, equal = scores < border, scores == border
    missing = count - below.sum(1, keepdim=True, dtype=torch.int32)
    return ~(below | (equal & (equal.cumsum(1, dtype=torch.int32) <= missing)))


def parse_share(text: str | float, within: str) -> Unstructured:
    """`50%` or `0.5`: the share of weights that is taken, compared `within` a row or the matrix. Raises UsageError for
    anything else."""
    if within not in WITHIN:
        raise UsageError(
            "within {within!r} is not known. Weights are compared within a {known}.",
            within=within,
            known=" or a ".join(WITHIN),
        )
    match = SHARE.fullmatch(str(text).strip())
    share = None if match is None else Fraction(match[1]) / (100 if match[2] else 1)
    if share is None or not 0 < share < 1:
        raise UsageError(
            "{text} is no share of weights to take. Give more than nothing and less than all of them: 50%, or 0.5.",
            text=text,
        )
    return Unstructured(share, within)


def parse_groups(text: str) -> Grouped:
    """`2:4`: of every 4 weights 2 stay. Raises UsageError for anything else."""
    match = _GROUPS.fullmatch(str(text).strip())
    kept, size = (0, 0) if match is None else (int(match[1]), int(match[2]))
    if not 0 < kept < size:
        raise UsageError(
            "{text!r} is no pattern. It says how many of so many neighbours in a row stay, fewer than all: 2:4 or 4:8.",
            text=text,
        )
    return Grouped(kept, size)


def parse_pattern(text: str | float, within: str) -> Pattern:
    """`2:4`, or as `parse_share` takes it."""
    return parse_groups(str(text)) if ":" in str(text) else parse_share(text, within)
