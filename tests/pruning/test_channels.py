"""What columns are worth, and which stay: against the definitions, worked out the long way."""

from __future__ import annotations

import itertools

import pytest
import torch

from whet.pruning.channels import CHANNEL_IMPORTANCES, SCORES, best_units, ordered_units

GENERATOR = torch.Generator().manual_seed(0)


def problem(out=5, width=12, tokens=400):
    x = torch.randn(tokens, width, generator=GENERATOR) @ torch.randn(width, width, generator=GENERATOR)
    return torch.randn(out, width, generator=GENERATOR), x.t() @ x / tokens


def refit_loss(w, h, kept):
    """E|W x − W' x_S|² with the best W', by least squares with the damping that scores use."""
    damped = h.double() + 0.01 * h.diagonal().mean().double() * torch.eye(len(h), dtype=torch.float64)
    w = w.double()
    best = w @ damped[:, kept] @ torch.linalg.inv(damped[kept][:, kept])
    whole = torch.zeros_like(w)
    whole[:, kept] = best
    return float(((w - whole) @ damped * (w - whole)).sum())


@pytest.mark.parametrize("size", [1, 3])
def test_obs_takes_what_loses_least_once_others_made_up_for_it(size):
    w, h = problem()
    count, alive = 12 // size, list(range(12 // size))
    for keep in range(count - 1, 0, -1):

        def without(unit):
            return [c for u in alive if u != unit for c in range(u * size, (u + 1) * size)]

        alive.remove(min(alive, key=lambda unit: refit_loss(w, h, without(unit))))
        assert best_units("obs", w, h, count, keep) == alive


def test_obs_takes_the_double_of_another_channel_first():
    w, h = problem()
    mixed = torch.eye(12)
    mixed[:, 7] = mixed[:, 3]  # channel 7 gives what channel 3 gives
    assert set(range(12)) - set(best_units("obs", w, mixed.t() @ h @ mixed, 12, 11)) <= {3, 7}


def test_many_channels_that_go_together_lose_about_as_much_as_one_by_one():
    w, h = problem(8, 192, 2000)
    kept = best_units("obs", w, h, 192, 96)  # 3 at a time at first
    slow = [unit for unit in range(192)]
    assert len(kept) == 96 and kept == sorted(set(kept)) and set(kept) <= set(slow)
    assert refit_loss(w, h, kept) < min(refit_loss(w, h, best_units(name, w, h, 192, 96)) for name in SCORES)


@pytest.mark.parametrize("name", CHANNEL_IMPORTANCES)
def test_the_first_units_of_the_order_are_the_best_however_many(name):
    w, h = problem(8, 192, 2000)
    for count in (192, 12):
        order = ordered_units(name, w, h, count)
        for keep in range(1, count, 1 if count == 12 else 17):
            assert sorted(order[:keep]) == best_units(name, w, h, count, keep)


def test_scores_are_what_their_papers_say():
    w, h = problem()
    x2 = h.diagonal()
    assert torch.allclose(SCORES["magnitude"](w, h, 12), (w**2).sum(0))
    assert torch.allclose(SCORES["activation"](w, h, 4), x2.view(4, 3).sum(1))
    assert torch.allclose(SCORES["wanda"](w, h, 4), (x2 * (w**2).sum(0)).view(4, 3).sum(1))
    damping = 0.01 * x2.mean()
    ridge = torch.diagonal(h @ torch.linalg.inv(h + damping * torch.eye(12)))
    assert torch.allclose(SCORES["leverage"](w, h, 12), ridge * (w**2).sum(0).sqrt(), rtol=1e-3)


@pytest.mark.parametrize("name", CHANNEL_IMPORTANCES)
def test_nothing_to_take_ties_and_inputs_that_are_all_zero(name):
    w, h = problem()
    assert best_units(name, w, h, 12, 12) == list(range(12))
    alike = best_units(name, torch.ones(3, 6), torch.eye(6), 6, 4)
    assert len(alike) == 4 and alike == best_units(name, torch.ones(3, 6), torch.eye(6), 6, 4)
    assert len(best_units(name, w, torch.zeros(12, 12), 12, 5)) == 5


def test_no_set_of_the_size_is_much_better_than_the_one_obs_finds():
    w, h = problem(4, 8)
    best = min(refit_loss(w, h, list(kept)) for kept in itertools.combinations(range(8), 5))
    assert refit_loss(w, h, best_units("obs", w, h, 8, 5)) <= 1.5 * best
