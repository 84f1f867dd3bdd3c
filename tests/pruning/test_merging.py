"""Experts merged into others: which, how much each counts, and the order of their neurons."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import normalize

from whet.pruning.merging import MOST, aligned, groups, shares, similarity


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_copy_is_the_most_alike_and_goes_into_what_it_is_a_copy_of():
    outputs, gates = random(5, 30, 16), torch.softmax(random(5, 30, seed=1), 0)
    outputs[4], gates[4] = outputs[1], gates[1]
    alike = similarity(outputs, gates)
    assert torch.allclose(alike, alike.t())
    assert alike.diagonal() == pytest.approx(1, abs=1e-5) and alike[4, 1] == pytest.approx(1, abs=1e-5)
    assert ((alike >= 0) & (alike <= 1 + 1e-6)).all()
    found = groups(alike, [0, 1, 2])
    assert 4 in found[1] and sorted(itertools.chain(*found.values())) == [3, 4]


def test_one_expert_takes_in_so_many_and_no_more():
    alike = torch.zeros(40, 40)
    alike[:, 0] = 1
    found = groups(alike, [0, 1])
    assert [len(one) for one in found.values()] == [MOST, MOST] and len(
        set(itertools.chain(*found.values()))
    ) == 2 * MOST


def test_each_counts_by_its_worth_and_an_unused_one_like_the_least():
    assert shares([3.0, 1.0, 0.0]) == pytest.approx([0.6, 0.2, 0.2])
    assert shares([0.0, 0.0]) == [0.5, 0.5]


def test_neurons_find_their_places_again():
    described = [random(48, 30), random(48, 20, seed=1)]
    moved = torch.randperm(48, generator=torch.Generator().manual_seed(2))
    other = [one[moved] + 0.1 * random(*one.shape, seed=3) for one in described]
    order = aligned(described, other)
    assert torch.equal(moved[order], torch.arange(48))
    unlike = [random(48, 30, seed=4), random(48, 20, seed=5)]
    order = aligned(described, unlike)
    alike = sum(normalize(a, dim=1) @ normalize(b, dim=1).t() for a, b in zip(described, unlike, strict=True))
    best = alike[linear_sum_assignment(-alike)].sum()
    assert sorted(order.tolist()) == list(range(48)) and alike[torch.arange(48), order].sum() > 0.8 * best
    assert aligned([torch.zeros(4, 3)], [torch.zeros(4, 3)]).tolist() == [0, 1, 2, 3]
