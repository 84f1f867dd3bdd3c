"""Importances: scores are what taking a weight costs, as each paper defines it."""

from __future__ import annotations

import inspect

import pytest
import torch

from whet.errors import UsageError
from whet.pruning import IMPORTANCES, WITHIN, find_importance, magnitude, sparsegpt, wanda
from whet.steps.options import IMPORTANCE
from whet.steps.options import IMPORTANCES as NAMED


def problem(rows=8, columns=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(400, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return torch.randn(rows, columns, generator=generator), x.t() @ x / 400


def loss(error, h):
    return (error @ h * error).sum(-1)


@pytest.mark.parametrize("name", IMPORTANCES)
def test_every_importance_scores_every_weight_and_zeros_are_worth_nothing(name):
    w, h = problem()
    w[2, 5] = w[3, 0] = 0
    kept = w.clone(), h.clone()
    row = IMPORTANCES[name]
    scores = row.score(w, h if row.inputs else None)
    assert scores.shape == w.shape and scores.dtype == torch.float32 and (scores >= 0).all()
    assert (scores == 0).nonzero().tolist() == [[2, 5], [3, 0]]
    assert torch.equal(w, kept[0]) and torch.equal(h, kept[1])
    assert row.within in WITHIN and list(inspect.signature(row.score).parameters) == ["w", "h"]
    # a row's scores are its own
    assert torch.equal(row.score(w[3:5], h), scores[3:5])


def test_wanda_is_the_root_of_what_taking_a_weight_alone_costs():
    w, h = problem()
    scores = wanda(w, h)
    for column in range(w.shape[1]):
        gone = torch.zeros_like(w)
        gone[:, column] = w[:, column]
        torch.testing.assert_close(scores[:, column].square(), loss(gone, h))
    # and where all inputs are alike it is the magnitude
    assert torch.equal(wanda(w, torch.eye(24)), magnitude(w, None))


def test_sparsegpt_is_what_taking_a_weight_costs_once_all_others_made_up_for_it():
    w, h = problem()
    damped = (h + 0.01 * h.diagonal().mean() * torch.eye(24)).double()
    scores = sparsegpt(w, h)
    for column in range(24):
        rest = [c for c in range(24) if c != column]
        q = torch.zeros_like(w, dtype=torch.float64)
        q[:, rest] = torch.linalg.solve(damped[rest][:, rest], (w.double() @ damped)[:, rest].t()).t()
        torch.testing.assert_close(scores[:, column].double(), loss(w - q, damped), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("case", ["few tokens", "a dead input", "nothing", "not definite"])
def test_scores_are_finite_on_odd_inputs(case):
    w, h = problem()
    if case == "few tokens":
        x = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
        h = x.t() @ x / 3
    elif case == "a dead input":
        h[4], h[:, 4] = 0, 0
    elif case == "nothing":
        h = torch.zeros_like(h)
    else:
        h = h - 2 * h.diagonal().mean() * torch.eye(24)
    for score in (wanda, sparsegpt):
        assert torch.isfinite(score(w, h)).all()
    if case == "a dead input":
        assert (wanda(w, h)[:, 4] == 0).all()
        others = [c for c in range(24) if c != 4]
        assert (sparsegpt(w, h)[:, 4] < sparsegpt(w, h)[:, others].mean(1)).all()


def test_names_are_those_that_options_say():
    assert NAMED.split(", ") == list(IMPORTANCES)
    assert IMPORTANCE in IMPORTANCES
    with pytest.raises(UsageError, match=r"wandda.*Did you mean wanda\?"):
        find_importance("wandda")
