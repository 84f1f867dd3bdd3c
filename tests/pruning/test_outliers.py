"""How a share is divided among blocks by their outliers."""

from __future__ import annotations

from fractions import Fraction

import pytest

from whet.errors import UsageError
from whet.pruning.outliers import ALLOCATIONS, Counted, check_allocation, shares_by_outliers
from whet.steps.options import ALLOCATIONS as NAMED

BLOCKS = [Counted(1000, 40), Counted(1000, 10), Counted(3000, 30), Counted(1000, 25)]


@pytest.mark.parametrize("share", [Fraction(n, 20) for n in range(1, 20)])
def test_all_together_lose_the_share_and_none_nearly_everything(share):
    found = shares_by_outliers(BLOCKS, share)
    assert sum(one.weights * mine for one, mine in zip(BLOCKS, found, strict=True)) == share * 6000
    assert found[0] < found[3] < found[1] == found[2]
    assert all(share / 2 <= mine <= (1 + share) / 2 for mine in found)


def test_blocks_differ_by_twice_the_spread_as_in_the_paper():
    least, *_, most = sorted(shares_by_outliers(BLOCKS, Fraction(6, 10)))
    assert most - least == Fraction(16, 100)
    assert shares_by_outliers([Counted(10, 1), Counted(30, 3)], Fraction(1, 2)) == [Fraction(1, 2)] * 2


def test_names():
    assert ", ".join(ALLOCATIONS) == NAMED
    with pytest.raises(UsageError, match="Did you mean owl"):
        check_allocation("owll")
