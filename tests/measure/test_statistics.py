"""Statistics against scipy, against formulas written out again here, and against simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.measure.statistics import (
    clustered_mcnemar,
    clustered_mean,
    clustered_ratio,
    holm,
    independent_items,
    mcnemar,
    median_interval,
    paired_difference,
    percentiles,
    skewed_ratio,
    t_quantile,
    wilson,
)

finite = st.floats(-100, 100)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(finite, st.floats(0.5, 4), st.integers(0, 5)), min_size=2, max_size=60))
def test_clustered_ratio_is_the_sandwich_written_out(rows):
    top, bottom, labels = (np.array(column) for column in zip(*rows, strict=True))
    found = clustered_ratio(top, bottom, labels)
    ratio = top.sum() / bottom.sum()
    assert found.value == pytest.approx(ratio, abs=1e-12)
    names = set(labels.tolist())
    assert (found.clusters, found.count) == (len(names), len(rows))
    if len(names) == 1:
        assert found.standard_error is None and found.interval is None
        return
    meat = 0.0
    for name in names:
        mine = labels == name
        meat += (top[mine].sum() - ratio * bottom[mine].sum()) ** 2
    error = math.sqrt(meat * len(names) / (len(names) - 1)) / bottom.sum()
    assert found.standard_error == pytest.approx(error, rel=1e-9, abs=1e-12)
    reach = scipy.stats.t.ppf(0.975, len(names) - 1) * error
    assert found.interval == pytest.approx((ratio - reach, ratio + reach), rel=1e-7, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(finite, min_size=2, max_size=40))
def test_with_one_item_a_cluster_the_error_of_a_mean_is_the_textbook_one(values):
    found = clustered_mean(values, np.arange(len(values)))
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    assert found.standard_error == pytest.approx(scipy.stats.sem(values), rel=1e-7, abs=1e-9)


def test_clustered_intervals_cover_and_naive_ones_do_not():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 50)
    hits = naive_hits = 0
    for _ in range(400):
        values = 1.0 + rng.normal(size=20)[labels] + rng.normal(size=1000)
        low, high = clustered_mean(values, labels).interval
        hits += low <= 1.0 <= high
        reach = 1.96 * values.std() / math.sqrt(1000)
        naive_hits += abs(values.mean() - 1.0) <= reach
    assert 0.92 <= hits / 400 <= 0.98
    assert naive_hits / 400 < 0.6


def test_intervals_of_skewed_clusters_cover_where_those_of_t_do_not():
    """Clusters of which few hold much (gamma 0.5): the upper end is what fails."""
    rng = np.random.default_rng(0)
    labels = np.arange(50)
    missed = {"t": [0, 0], "skewed": [0, 0]}
    for _ in range(1500):
        values, sizes = 20 * rng.gamma(0.5, 2.0, 50), np.full(50, 20.0)
        for name, of in (("t", clustered_ratio), ("skewed", skewed_ratio)):
            low, high = of(values, sizes, labels).interval
            missed[name][0] += low > 1.0
            missed[name][1] += high < 1.0
    assert missed["t"][1] / 1500 > 0.065 and missed["t"][0] / 1500 < 0.01
    assert missed["skewed"][1] / 1500 < 0.045 and 0.01 < missed["skewed"][0] / 1500 < 0.03


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.5, 4), st.integers(0, 9)), min_size=2, max_size=60))
def test_a_skewed_interval_holds_its_value_and_is_not_inside_what_t_says_above(rows):
    top, bottom, labels = (np.array(column) for column in zip(*rows, strict=True))
    plain, found = clustered_ratio(top, bottom, labels), skewed_ratio(top, bottom, labels)
    assert (found.value, found.standard_error) == (plain.value, plain.standard_error)
    if plain.interval is None:
        assert found.interval is None
        return
    low, high = found.interval
    assert low <= found.value <= high
    if found.clusters >= 3 and found.value:
        assert low >= 0 and high >= plain.interval[1] * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_interval_of_a_median_has_the_ranks_of_the_binomial(values, confidence):
    found, ordered = median_interval(values, confidence), sorted(values)
    ranks = [
        k for k in range(1, len(values) + 1) if scipy.stats.binom.cdf(k - 1, len(values), 0.5) <= (1 - confidence) / 2
    ]
    assert found == ((ordered[ranks[-1] - 1], ordered[-ranks[-1]]) if ranks else None)
    assert found is None or found[0] <= found[1]
    assert median_interval([1.0] * 5) is None and median_interval([1.0] * 6) == (1.0, 1.0)


def test_equal_values_have_no_error_and_wrong_shapes_are_refused():
    assert clustered_mean([2.0] * 6, [0, 0, 1, 1, 2, 2]).interval == (2.0, 2.0)
    for bad in (([], [], []), ([1.0], [1.0, 2.0], [0]), ([1.0], [0.0], [0])):
        with pytest.raises(ValueError, match=r"one length|sum to 0"):
            clustered_ratio(*bad)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(lost, gained):
    expected = scipy.stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_mcnemar_of_many_flips_neither_overflows_nor_rounds_to_nothing():
    assert mcnemar(10_000, 10_000) == 1.0
    assert mcnemar(3_000, 2_500) == pytest.approx(scipy.stats.binomtest(3_000, 5_500).pvalue, rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=10))
def test_clustered_mcnemar_counts_all_ways_to_turn_the_clusters_round(changes):
    turns = itertools.product((-1, 1), repeat=len(changes))
    ways = [sum(c * sign for c, sign in zip(changes, signs, strict=True)) for signs in turns]
    expected = sum(abs(total) >= abs(sum(changes)) for total in ways) / len(ways)
    assert clustered_mcnemar(changes) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 50))
def test_clusters_of_one_item_are_mcnemars(lost, gained, both):
    assert clustered_mcnemar([-1] * lost + [1] * gained + [0] * both) == pytest.approx(mcnemar(lost, gained), rel=1e-9)


def test_clustered_mcnemar_of_many_flips_neither_overflows_nor_rounds_to_nothing():
    assert clustered_mcnemar([1, -1] * 10_000 + [3, -3] * 500) == 1.0
    assert clustered_mcnemar([2] * 30 + [-2] * 30) == 1.0
    # clusters of two that flip together tell as much as half as many items
    assert clustered_mcnemar([-2] * 300 + [2] * 250) == pytest.approx(mcnemar(300, 250), rel=1e-9)


def test_items_that_answer_as_one_count_as_one():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(200), 5)
    same = (rng.random(200) < 0.7)[labels]
    assert 170 < independent_items(same, labels) < 215
    alone = rng.random(1000) < 0.7
    assert 800 < independent_items(alone, labels) <= 1000
    assert independent_items(alone, np.arange(1000)) == 1000  # each its own: exactly as many
    assert independent_items([0] * 10, [0, 1] * 5) < 10  # nothing differs, but of two clusters little is known
    for bad in (([1, 0], [0]), ([[1]], [[0]]), ([1, 0, 1], [0, 0, 0])):
        with pytest.raises(ValueError, match=r"one length|how clusters differ"):
            independent_items(*bad)


def test_an_interval_by_groups_covers_and_one_by_items_does_not():
    """40 passages of 10 questions each, as hard as their passage: how often is the share of all of them covered?"""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(40), 10)
    hits = naive = 0
    for _ in range(400):
        right = rng.random(400) < rng.beta(2, 1, 40)[labels]
        weight = independent_items(right, labels) / 400
        low, high = wilson(right.sum() * weight, 400 * weight)
        hits += low <= 2 / 3 <= high
        low, high = wilson(int(right.sum()), 400)
        naive += low <= 2 / 3 <= high
    assert 0.92 <= hits / 400 <= 0.98
    assert naive / 400 < 0.85


def test_holm_by_hand_and_against_scipy_free_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_and_the_bonferroni_value_and_keeps_order(p):
    adjusted = holm(p)
    assert all(raw <= a <= min(1, len(p) * raw) for raw, a in zip(p, adjusted, strict=True))
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert all(adjusted[a] <= adjusted[b] for a, b in itertools.pairwise(order))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_wilson_is_scipys(right, more):
    of = right + more
    if of == 0:
        assert wilson(0, 0) == (0.0, 1.0)
        return
    expected = scipy.stats.binomtest(right, of).proportion_ci(method="wilson")
    assert wilson(right, of) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 200))
def test_paired_difference_ends_where_the_score_test_does(lost, gained, both):
    of = lost + gained + both
    low, high = paired_difference(lost, gained, of)
    change = (gained - lost) / of
    assert -1 <= low <= change <= high <= 1
    assert paired_difference(gained, lost, of) == pytest.approx((-high, -low), abs=1e-9)
    for end in (low, high):
        if abs(end) < 1:
            # the restricted likelihood, maximized on a grid instead of by the formula
            grid = np.linspace(max(0.0, -end), (1 - end) / 2, 200_001)
            with np.errstate(divide="ignore", invalid="ignore"):
                likelihood = (
                    scipy.special.xlogy(lost, grid)
                    + scipy.special.xlogy(gained, grid + end)
                    + scipy.special.xlogy(both, 1 - 2 * grid - end)
                )
            q = grid[np.nanargmax(likelihood)]
            score = (gained - lost - of * end) / math.sqrt(of * (2 * q + end * (1 - end)))
            assert abs(score) == pytest.approx(1.95996, abs=0.02)


def test_no_flips_leave_room_by_the_rule_stated():
    low, high = paired_difference(0, 0, 200)
    z2 = 1.959964**2
    assert (low, high) == pytest.approx((-z2 / (200 + z2), z2 / (200 + z2)), abs=1e-6)
    assert paired_difference(0, 0, 0) == (-1.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.001, 0.9999), st.integers(1, 500))
def test_t_quantiles_are_scipys(probability, degrees):
    assert t_quantile(probability, degrees) == pytest.approx(
        scipy.stats.t.ppf(probability, degrees), rel=1e-6, abs=1e-8
    )


def test_percentiles_are_numpys_and_empty_is_refused():
    values = np.random.default_rng(0).exponential(size=1000)
    found = percentiles(values)
    assert list(found) == ["p50", "p90", "p95", "p99", "p99.9", "max"]
    assert found["p99.9"] == np.percentile(values, 99.9) and found["max"] == values.max()
    with pytest.raises(ValueError, match="no values"):
        percentiles([])
