"""Weights that make up for what went: exact where they can be, and never worse on text that tells."""

from __future__ import annotations

import pytest
import torch

from whet.pruning.least_squares import Regression, refitted

GENERATOR = torch.Generator().manual_seed(0)


def regression(x, t):
    return Regression(x.t() @ x / len(x), t.t() @ x / len(x), float(t.double().square().sum()) / len(x))


def inputs(tokens=600, width=10):
    return torch.randn(tokens, width, generator=GENERATOR)


def test_the_loss_is_the_mean_square_of_what_is_missing():
    x, t, w = inputs(), inputs(width=3), torch.randn(3, 10, generator=GENERATOR)
    expected = float((t - x @ w.t()).double().square().sum()) / len(x)
    assert regression(x, t).loss(w.double()) == pytest.approx(expected, rel=1e-5)


def test_a_channel_that_others_give_too_is_made_up_for():
    x = inputs()
    x[:, 4] = 0.5 * x[:, 1] - 2 * x[:, 2]
    w = torch.randn(3, 10, generator=GENERATOR)
    kept = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8, 9])
    found, ridge = refitted(w, kept, regression(x, x @ w.t()), regression(x, x @ w.t()))
    assert ridge == 0.003 and not found[:, 4].any()
    plain = w.clone()
    plain[:, 4] = 0
    lost = [regression(x, x @ w.t()).loss(one.double()) for one in (found, plain)]
    assert lost[0] < 1e-3 * lost[1]


def test_text_that_tells_nothing_moves_nothing():
    x, other = inputs(12), inputs()
    w = torch.randn(3, 10, generator=GENERATOR)
    kept = torch.arange(10)
    noise = torch.randn(12, 3, generator=GENERATOR)
    found, ridge = refitted(w, kept, regression(x, x @ w.t() + 5 * noise), regression(other, other @ w.t()))
    assert ridge is None and torch.equal(found, w)


def test_without_other_text_a_small_ridge_is_taken_and_a_dead_channel_stays_finite():
    x = inputs()
    x[:, 3] = 0
    w = torch.randn(3, 10, generator=GENERATOR)
    found, ridge = refitted(w, torch.tensor([0, 1, 2, 3, 4]), regression(x, x @ w.t()), None)
    assert ridge == 0.01 and torch.isfinite(found).all() and not found[:, 5:].any()
