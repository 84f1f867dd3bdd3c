"""Looking often: what the looks together let through is the error that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from whet.measure.sequential import levels, schedule


@pytest.mark.parametrize(
    ("units", "fewest", "counts"),
    [
        (256, 25, [32, 64, 128, 256]),
        (60, 25, [30, 60]),
        (24, 25, [24]),
        (1, 25, [1]),
        (0, 25, []),
        (48, 12, [12, 24, 48]),
    ],
)
def test_looks_double_and_none_is_at_few(units, fewest, counts):
    assert schedule(units, fewest) == counts


@pytest.mark.parametrize("error", [0.025, 0.025 / 12])
@pytest.mark.parametrize("counts", [[32, 64, 128, 256], [30, 60], [20]])
def test_an_estimate_at_its_limit_is_found_beyond_it_as_often_as_was_asked_for(counts, error):
    """By simulation of the sums, 400,000 times; also after each look, by the cube of what is in."""
    rng, runs = np.random.default_rng(0), 400_000
    boundaries = scipy.stats.norm.isf(levels(counts, error))
    total, beyond, before = np.zeros(runs), np.zeros(runs, dtype=bool), 0
    for count, boundary in zip(counts, boundaries, strict=True):
        total += rng.normal(size=runs) * np.sqrt(count - before)
        beyond |= total / np.sqrt(count) > boundary
        before = count
        spent = error * (count / counts[-1]) ** 3
        assert abs(beyond.mean() - spent) < 4 * np.sqrt(spent / runs) + 1 / runs


def test_looking_often_at_plain_intervals_lets_through_more():
    """The check above tells one from the other."""
    rng, runs = np.random.default_rng(0), 20_000
    total, beyond, before = np.zeros(runs), np.zeros(runs, dtype=bool), 0
    for count in (32, 64, 128, 256):
        total += rng.normal(size=runs) * np.sqrt(count - before)
        beyond |= total / np.sqrt(count) > scipy.stats.norm.isf(0.025)
        before = count
    assert beyond.mean() > 0.06


def test_one_look_has_the_whole_error():
    assert levels([100], 0.025) == pytest.approx([0.025])
