"""The threshold from which on a token leaves: what is shown of the agreement, and what is refused."""

import numpy as np
import pytest
import torch

from whet.errors import GateError
from whet.measure.exiting import THRESHOLDS, Window, calibrate, fewest, look
from whet.measure.statistics import lower_mean


def test_the_lower_limit_is_wrong_as_seldom_as_it_says():
    random = np.random.default_rng(0)
    for mean, draw in ((0.9, lambda n: random.random(n) < 0.9), (0.98, lambda n: random.beta(49, 1, n))):
        limits = [lower_mean(np.asarray(draw(120), dtype=float)) for _ in range(300)]
        assert np.mean([limit > mean for limit in limits]) <= 0.05
        assert np.mean(limits) > mean - 0.15  # and says something
    assert lower_mean([0.0] * 50) < 0.01 and lower_mean([1.0] * 300) > 0.98


@pytest.mark.parametrize("target", [0.9, 0.98])
def test_fewer_windows_than_the_fewest_show_nothing(target):
    count = fewest(target)
    assert lower_mean([1.0] * count) >= target > lower_mean([1.0] * (count - 1))


def windows(count=400, tokens=32, seed=0):
    """Tokens that are as often the whole model's as the exit is sure of them."""
    random = torch.Generator().manual_seed(seed)
    sure = torch.rand(count, 2, tokens, generator=random) ** 0.2
    same = torch.rand(count, 2, tokens, generator=random) < sure
    return [Window(a, b) for a, b in zip(sure, same, strict=True)]


def test_the_threshold_taken_is_the_last_that_keeps_the_agreement():
    some = windows()
    taken = calibrate(some, 0.95)
    assert taken.limit >= 0.95 and 0 < taken.left < 1 and taken.windows == 400
    following = THRESHOLDS[THRESHOLDS.index(taken.threshold) + 1]
    assert look(some, following).limit < 0.95
    assert look(windows(seed=1), taken.threshold).agreement > 0.95
    assert sum(taken.shares) == pytest.approx(1) and len(taken.shares) == 3


def test_at_infinity_no_token_leaves_and_all_agree():
    left = look(windows(20), float("inf"))
    assert left.shares == [0, 0, 1] and left.agreement == 1


def test_a_target_that_nothing_reaches_is_refused_with_what_there_is():
    with pytest.raises(GateError, match=r"keeps an agreement of 99\.90%.*Ask for a lower agreement"):
        calibrate(windows(), 0.999)
    unsure = [Window(torch.full((1, 8), 0.1), torch.ones(1, 8, dtype=torch.bool))] * 100
    with pytest.raises(GateError, match=r"no exit any token is sure.*--exits"):
        calibrate(unsure, 0.9)
