"""Patterns: exactly the share that is asked for, never more, the lowest scores, and of equal ones always the same."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.errors import UsageError
from whet.pruning import Grouped, Unstructured, parse_groups, parse_pattern, parse_share

N_M = [(1, 2), (2, 4), (4, 8), (1, 4), (7, 8)]
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 40))


def drawn(shape, seed, distinct):
    """Scores with many equal ones, unless they are to be distinct."""
    generator = torch.Generator().manual_seed(seed)
    if distinct:
        return torch.randperm(shape[0] * shape[1], generator=generator).view(shape).float()
    return torch.randint(0, 4, shape, generator=generator).float()


def lowest_first(mask, scores):
    """Whether nothing that is gone is worth more than what stays, and of equals the first are gone."""
    gone, kept = scores[~mask], scores[mask]
    if not len(gone) or not len(kept):
        return True
    border = gone.max()
    equal = mask[scores == border].tolist()
    return bool(border <= kept.min()) and equal == sorted(equal)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.fractions(Fraction(1, 50), Fraction(49, 50), max_denominator=50), st.integers(0, 99), st.booleans())
def test_a_share_is_exactly_that_of_each_row_or_of_the_matrix(shape, share, seed, distinct):
    scores = drawn(shape, seed, distinct)
    kept = scores.clone()
    by_row = Unstructured(share, "row").mask(scores)
    assert ((~by_row).sum(1) == int(share * shape[1])).all()
    assert all(lowest_first(mask, row) for mask, row in zip(by_row, scores, strict=True))
    whole = Unstructured(share, "matrix").mask(scores)
    assert int((~whole).sum()) == int(share * scores.numel()) <= share * scores.numel()
    assert lowest_first(whole.flatten(), scores.flatten())
    assert torch.equal(scores, kept)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.integers(1, 6), st.sampled_from(N_M), st.integers(0, 99))
def test_of_every_group_as_many_stay_as_the_pattern_says(rows, groups, pattern, seed):
    kept, size = pattern
    scores = drawn((rows, groups * size), seed, distinct=False)
    mask = Grouped(kept, size).mask(scores).view(-1, size)
    assert (mask.sum(1) == kept).all()
    assert all(lowest_first(one, own) for one, own in zip(mask, scores.view(-1, size), strict=True))


def test_what_is_gone_is_the_first_to_go_again():
    scores = torch.rand(6, 32, generator=torch.Generator().manual_seed(0))
    for pattern in (Unstructured(Fraction(1, 2), "row"), Unstructured(Fraction(1, 2), "matrix"), Grouped(2, 4)):
        before = torch.ones_like(scores, dtype=torch.bool)
        for stage in pattern.stages():
            mask = stage.mask(scores.masked_fill(~before, -1))
            assert not mask[~before].any() and (~mask).sum() >= (~before).sum()
            before = mask
        assert torch.equal(before, pattern.mask(scores))  # where scores stay, stages make no difference


@pytest.mark.parametrize(
    ("said", "pattern", "name"),
    [
        ("50%", Unstructured(Fraction(1, 2), "row"), "50%"),
        ("0.29", Unstructured(Fraction(29, 100), "row"), "29%"),
        (0.5, Unstructured(Fraction(1, 2), "row"), "50%"),
        (" 33.3 % ", Unstructured(Fraction(333, 1000), "row"), "33.3%"),
        (".7", Unstructured(Fraction(7, 10), "row"), "70%"),
        ("2:4", Grouped(2, 4), "2:4"),
        ("4 : 8", Grouped(4, 8), "4:8"),
    ],
)
def test_patterns_are_read_as_people_write_them(said, pattern, name):
    assert parse_pattern(said, "row") == pattern and pattern.name == name
    assert parse_pattern(pattern.name, "row") == pattern
    assert pattern.mask(torch.rand(4, 1000)).float().mean().item() == pytest.approx(1 - float(pattern.share), abs=1e-6)


def test_a_share_of_100_columns_is_not_lost_to_floats():
    assert int((~parse_share("29%", "row").mask(torch.rand(3, 100))).sum()) == 3 * 29


@pytest.mark.parametrize("said", ["0", "0%", "1", "100%", "50", "-0.5", "half", "nan", "1e-3", "", True])
def test_what_is_no_share_is_refused(said):
    with pytest.raises(UsageError, match="is no share of weights"):
        parse_share(said, "row")


@pytest.mark.parametrize("said", ["4:4", "0:4", "5:4", "2", "2:", "a:b", "-2:4", "124"])
def test_what_is_no_pattern_is_refused(said):
    with pytest.raises(UsageError, match="is no pattern"):
        parse_groups(said)


def test_what_does_not_fit_says_why():
    assert Grouped(2, 4).fault(64) is None and "do not divide by 4" in str(Grouped(2, 4).fault(66))
    assert Unstructured(Fraction(1, 2), "row").fault(7) is None
    with pytest.raises(UsageError, match="within 'rows'"):
        parse_share("50%", "rows")
