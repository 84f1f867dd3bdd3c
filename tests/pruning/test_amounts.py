"""Shapes that remove a share: near it, none smaller than it has to be, none where there is none."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from whet.pruning import Amounts, Weights, shapes
from whet.steps.prune_shapes import TRIALS
from whet.steps.prune_trials import climb

UNITS = ("layers", "channels", "heads")


@st.composite
def models(draw):
    layers, channels, heads = (
        draw(st.integers(2, 12)),
        draw(st.sampled_from([96, 352, 512, 11008])),
        draw(st.integers(1, 8)),
    )
    channel, head = 3 * 64, draw(st.integers(100, 50_000))
    block = channel * channels + head * heads + 128
    return Weights([block] * layers, channel, head, 0, Amounts(layers, channels, heads, 0))


@given(models(), st.integers(5, 60))
def test_a_shape_removes_about_the_share_and_nothing_that_it_need_not(weights, percent):
    share = Fraction(percent, 100)
    found = shapes(weights, share, UNITS)
    for one in found:
        removed = weights.removed(one)
        half = Fraction(weights.step * weights.channel * one.layers, 2 * weights.total)
        assert one != weights.whole and one.layers >= 1 and one.channels >= 1 and one.heads >= 1
        assert abs(removed - share) <= half or (one.channels == weights.whole.channels and removed >= share - half)
        assert not any(
            other != one and other.layers >= one.layers and other.channels >= one.channels and other.heads >= one.heads
            for other in found
        )


@given(models(), st.integers(5, 60))
def test_units_that_were_not_asked_for_stay(weights, percent):
    share = Fraction(percent, 100)
    for unit in UNITS:
        for one in shapes(weights, share, (unit,)):
            assert all(getattr(one, other) == getattr(weights.whole, other) for other in UNITS if other != unit)


def test_depth_alone_takes_what_is_nearest_or_nothing():
    weights = Weights([1000] * 6, 1, 10, 0, Amounts(6, 500, 4, 0))
    assert [one.layers for one in shapes(weights, Fraction(1, 4), ("layers",))] == [5]
    assert [one.layers for one in shapes(weights, Fraction(1, 6), ("layers",))] == [5]
    assert shapes(weights, Fraction(1, 100), ("layers",)) == []
    assert shapes(weights, Fraction(9, 10), UNITS) == []


def test_the_search_leaves_a_pit_of_many_thin_blocks():
    """Thin blocks are best among their neighbours, and four whole ones best of all: a search from the first alone would
    stay with the thin ones."""
    weights = Weights([590_336] * 6, 768, 49_152, 0, Amounts(6, 512, 4, 0))
    offered = shapes(weights, Fraction(52, 100), UNITS)

    def loss(one):
        return 0.62 if (one.layers, one.heads) == (6, 2) else 0.9 if one.layers > 4 else abs(one.layers - 4) * 0.2 + 0.1

    assert min(climb(offered[:3], loss).values()) == 0.62
    tried = climb(offered, loss)
    assert min(tried, key=tried.get).layers == 4 and len(tried) <= TRIALS
    # with few to choose from, none is left out that is next to the best
    assert climb(offered[:1], loss) == {offered[0]: loss(offered[0])}
