"""The knapsack's laws: as good as trying everything, never over the limit, honest about how far from the best."""

from __future__ import annotations

import itertools
import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix

from whet.budget import Infeasible, Option, choose, fewest_bytes, frontier
from whet.errors import UsageError

# Few distinct values, so that ties, zeros and equal bytes are common; and any values at all.
LOSSES = st.one_of(st.integers(0, 4).map(float), st.floats(1e-20, 10), st.just(0.0))
GROUP = st.lists(st.builds(Option, st.integers(0, 12) | st.integers(0, 10**6), LOSSES), min_size=1, max_size=5)
GROUPS = st.lists(GROUP, min_size=1, max_size=5)


def everything(groups):
    """(bytes, loss) of every mix there is."""
    return [(sum(o.bytes for o in mix), math.fsum(o.loss for o in mix)) for mix in itertools.product(*groups)]


def check(groups, made):
    """What is said of a mix is true of it."""
    mix = [group[pick] for group, pick in zip(groups, made.picks, strict=True)]
    assert made.bytes == sum(o.bytes for o in mix)
    assert made.loss == pytest.approx(math.fsum(o.loss for o in mix), rel=1e-12, abs=1e-25)
    assert made.gap >= 0 and (made.gap == 0 or not made.exact)


@settings(max_examples=400, deadline=None)
@given(GROUPS, st.data())
def test_the_least_loss_is_that_of_trying_everything(groups, data):
    every = everything(groups)
    limit = data.draw(st.sampled_from([b for b, _ in every])) + data.draw(st.integers(-1, 1))
    fitting = [loss for size, loss in every if size <= limit]
    if not fitting:
        with pytest.raises(Infeasible) as raised:
            choose(groups, limit)
        assert raised.value.smallest == min(b for b, _ in every)
        return
    made = choose(groups, limit)
    check(groups, made)
    assert made.bytes <= limit and made.exact
    assert made.loss == pytest.approx(min(fitting), rel=1e-9, abs=1e-12)
    assert made.bound <= made.loss


@settings(max_examples=400, deadline=None)
@given(GROUPS, st.data())
def test_the_fewest_bytes_are_those_of_trying_everything(groups, data):
    every = everything(groups)
    most = data.draw(st.sampled_from([loss for _, loss in every])) * data.draw(st.sampled_from([1.0, 1.01, 0.99]))
    fitting = [size for size, loss in every if loss <= most * (1 + 1e-12)]
    if not fitting:
        with pytest.raises(Infeasible) as raised:
            fewest_bytes(groups, most)
        assert raised.value.smallest == pytest.approx(min(loss for _, loss in every))
        return
    made = fewest_bytes(groups, most)
    check(groups, made)
    assert made.loss <= most * (1 + 1e-9) and made.exact
    # a sum that is a rounding error above the limit may count as below it
    assert min(size for size, loss in every if loss <= most * (1 + 1e-9)) <= made.bytes <= min(fitting)


@settings(max_examples=200, deadline=None)
@given(GROUPS)
def test_the_frontier_is_the_convex_hull_of_all_mixes(groups):
    line = frontier(groups)
    every = everything(groups)
    sizes, losses = [b for b, _ in line], [loss for _, loss in line]
    assert sizes == sorted(set(sizes)) and losses == sorted(losses, reverse=True)
    assert sizes[0] == min(b for b, _ in every)
    assert losses[-1] == pytest.approx(min(loss for _, loss in every), abs=1e-9)
    for size, loss in line:
        assert any(b == size and math.isclose(loss, x, rel_tol=1e-9, abs_tol=1e-9) for b, x in every)
    for size, loss in every:  # nothing lies below it
        assert loss >= np.interp(size, sizes, losses) - 1e-9


def test_a_long_frontier_is_thinned_and_keeps_its_ends():
    groups = model(60, 40)
    line, thin = frontier(groups, 10**9), frontier(groups, 12)
    assert len(line) > 100 and len(thin) <= 12
    assert thin[0] == line[0] and thin[-1] == line[-1] and set(thin) <= set(line)


def model(count, options, seed=0):
    """Groups like those of a model: seven shapes, the first option lossless, losses falling by four a bit."""
    chance = random.Random(seed)
    shapes = [(512, 512), (512, 128), (512, 128), (512, 512), (1376, 512), (1376, 512), (512, 1376)]
    groups = []
    for i in range(count):
        rows, columns = shapes[i % 7]
        weight = math.exp(chance.gauss(0, 1.5))
        group = [Option(rows * columns * 2, 0.0)]
        for bits, size, kind in itertools.product(range(2, 9), (16, 32, 64, 128, columns), (0, 1, 2)):
            scales = rows * columns // size
            stored = rows * columns * bits // 8 + scales * (2 + kind)
            loss = weight * 4.0**-bits * (1 + 0.3 * math.log2(size)) * (1.15, 1, 0.97)[kind]
            group.append(Option(stored, loss * math.exp(chance.gauss(0, 0.05))))
        groups.append(group[:options])
    return groups


def limits(groups, share):
    low, high = (sum(end(o.bytes for o in group) for group in groups) for end in (min, max))
    return int(low + (high - low) * share)


def linear_program(groups, cost, weight, limit):
    """The optimum according to scipy's branch and cut."""
    flat = [(i, o) for i, group in enumerate(groups) for o in group]
    rows = [i for i, _ in flat] + [len(groups)] * len(flat)
    columns = [*range(len(flat))] * 2
    values = [1.0] * len(flat) + [float(weight(o)) for _, o in flat]
    matrix = coo_matrix((values, (rows, columns)), shape=(len(groups) + 1, len(flat))).tocsr()
    bounds = ([1.0] * len(groups) + [-np.inf], [1.0] * len(groups) + [float(limit)])
    made = milp(
        [float(cost(o)) for _, o in flat],
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, *bounds),
        options={"mip_rel_gap": 1e-6, "time_limit": 20},
    )
    assert made.success
    return made.fun


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("count,options", [(14, 106), (40, 30), (84, 60)])
def test_middling_sizes_are_as_good_as_integer_programming(count, options, share):
    groups = model(count, options, seed=count)
    limit = limits(groups, share)
    made = choose(groups, limit)
    check(groups, made)
    theirs = linear_program(groups, lambda o: o.loss * 1e3, lambda o: o.bytes / 1e4, limit / 1e4) / 1e3
    assert made.bytes <= limit and made.gap <= 1e-3
    assert made.loss <= theirs * 1.001 and theirs >= made.bound * (1 - 1e-6)
    dual = fewest_bytes(groups, made.loss)
    check(groups, dual)
    assert dual.bytes <= made.bytes and dual.gap <= 1e-3 and dual.loss <= made.loss * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.5]))
def test_random_options_too(seed, share):
    chance = random.Random(seed)
    groups = [[Option(chance.randrange(1, 10**5), chance.expovariate(1)) for _ in range(8)] for _ in range(12)]
    limit = limits(groups, share)
    made = choose(groups, limit)
    check(groups, made)
    theirs = linear_program(groups, lambda o: o.loss, lambda o: o.bytes / 1e4, limit / 1e4)
    assert made.loss <= theirs * (1 + 1e-5)


@pytest.mark.parametrize("kind", ["model", "identical", "correlated"])
def test_a_large_model_takes_seconds_and_leaves_almost_no_gap(kind):
    chance = random.Random(0)
    if kind == "model":
        groups = model(2000, 80)
    elif kind == "identical":
        groups = model(7, 80) * 285
    else:  # the worst there is: what an option saves is what it weighs, but for a little
        sizes = [chance.randrange(1, 10**6) for _ in range(2000 * 80)]
        flat = [Option(size, 10**6 - size + chance.random()) for size in sizes]
        groups = [flat[i : i + 80] for i in range(0, len(flat), 80)]
    limit = limits(groups, 0.3)
    started = time.process_time()
    made = choose(groups, limit)
    took = time.process_time() - started
    check(groups, made)
    assert made.bytes <= limit and made.gap < 1e-4
    assert took < 6  # about one second on a free core
    assert choose(groups, limit) == made


def test_zero_losses_cost_as_few_bytes_as_they_can():
    groups = [[Option(9, 0.0), Option(4, 0.0)], [Option(5, 0.0), Option(7, 0.0), Option(5, 0.0)]]
    for made in (choose(groups, 100), choose(groups, 9), fewest_bytes(groups, 0.0)):
        assert (made.picks, made.bytes, made.loss, made.exact, made.gap) == ([1, 0], 9, 0.0, True, 0.0)


def test_one_option_a_group_leaves_nothing_to_choose():
    groups = [[Option(3, 1.0)], [Option(4, 2.0)]]
    assert choose(groups, 7).picks == fewest_bytes(groups, 3.0).picks == [0, 0]
    assert frontier(groups) == [(7, 3.0)]
    assert choose([], 0).picks == [] and frontier([]) == [(0, 0.0)]


def test_equal_bytes_take_the_lesser_loss_and_equal_options_the_first():
    groups = [[Option(3, 2.0), Option(3, 1.0), Option(3, 1.0)]]
    assert choose(groups, 3).picks == [1]


def test_what_the_hulls_leave_out_is_found():
    """The best mix is of options above their groups' hulls, which no Lagrangian price would pick."""
    groups = [[Option(0, 10.0), Option(5, 6.0), Option(10, 0.0)], [Option(0, 10.0), Option(5, 6.0), Option(10, 0.0)]]
    assert choose(groups, 9).picks in ([1, 0], [0, 1]) and choose(groups, 9).loss == 16.0
    assert choose(groups, 10).loss == 10.0
    assert choose([*groups, [Option(0, 1.0), Option(4, 0.0)]], 9).loss == 16.0


def test_an_impossible_budget_says_what_is_possible():
    groups = [[Option(1200, 1.0), Option(2000, 0.0)], [Option(800, 0.5)]]
    with pytest.raises(UsageError, match=r"^--fit 1kB cannot be met: .*takes 2,000 bytes, 1,000 more\. Give at least"):
        choose(groups, 1000, asked="--fit 1kB")
    with pytest.raises(UsageError, match="A budget of 1,000 bytes cannot be met"):
        choose(groups, 1000)
    with pytest.raises(
        Infeasible, match=r"--quality 0\.99 cannot be met: .* 0\.5 nats a token, more than 0\.1"
    ) as raised:
        fewest_bytes(groups, 0.1, asked="--quality 0.99")
    assert raised.value.smallest == 0.5


@pytest.mark.parametrize("wrong", [[[]], [[Option(1, 1.0)], []], [[Option(1, math.nan)]], [[Option(-1, 0.0)]]])
def test_what_is_no_option_is_refused(wrong):
    with pytest.raises(ValueError, match=r"no options|not negative"):
        choose(wrong, 10)
