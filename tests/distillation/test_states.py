"""Hidden states and attention relations: what is compared with what, and that it is what the formula says."""

from __future__ import annotations

import math

import pytest
import torch

from whet.distillation import Projections, layer_map, relation_heads, relation_loss, state_loss


def test_layers_are_mapped_to_their_own_or_spread_evenly_and_the_last_to_the_last():
    assert layer_map(3, 6) == [(0, 1), (1, 3), (2, 5)]
    assert layer_map(6, 6) == [(i, i) for i in range(6)]
    assert layer_map(3, 6, kept=[0, 2, 4]) == [(0, 0), (1, 2), (2, 5)]
    for student in range(1, 13):
        pairs = layer_map(student, 12)
        assert pairs[-1] == (student - 1, 11) and len({there for _, there in pairs}) == student


def test_states_are_compared_by_direction_of_counted_positions():
    one, other = (torch.randn(2, 5, 8, dtype=torch.float64) for _ in range(2))
    weights = torch.tensor([[1.0, 1, 0, 0.5, 1]] * 2, dtype=torch.float64)
    total, count = state_loss(3 * one, other, weights)
    cosine = torch.nn.functional.cosine_similarity(one, other, -1)
    assert total.item() == pytest.approx((2 * (1 - cosine) * weights).sum().item(), rel=1e-5)
    assert count == 7 and state_loss(one, 2 * one, weights)[0] < 1e-9


def test_projections_begin_as_a_selection_and_are_none_between_equal_widths():
    states = torch.randn(2, 3, 4)
    assert torch.equal(Projections(2, 4, 4)(1, states), states) and not list(Projections(2, 4, 4).parameters())
    chosen = Projections(2, 4, 6, kept=[5, 0, 1, 3])
    wide = chosen(0, states)
    assert torch.equal(wide[..., [5, 0, 1, 3]], states) and not wide[..., [2, 4]].any()
    assert len(list(chosen.parameters())) == 2
    assert torch.equal(Projections(1, 6, 4)(0, torch.arange(6.0)), torch.arange(4.0))


@pytest.mark.parametrize("causal", [False, True])
def test_relations_are_the_formulas_whatever_the_widths(causal):
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 5, w, generator=rng, dtype=torch.float64) for w in (8, 12))
    student.requires_grad_()
    weights = torch.tensor([[1.0, 0.5, 0, 1, 2]] * 2, dtype=torch.float64)
    total, count = relation_loss(student, teacher, 4, weights, causal=causal)
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(2):
        for head in range(4):
            tables = []
            for x in (teacher[row], student[row]):
                d = x.shape[1] // 4
                mine = x[:, head * d : (head + 1) * d]
                tables.append(mine @ mine.t() / math.sqrt(d))
            for at in range(5):
                p, q = (table[at, : at + 1 if causal else 5].softmax(-1) for table in tables)
                expected = expected + weights[row, at] * (p * (p / q).log()).sum() / 4
    (gradient,) = torch.autograd.grad(expected, student, retain_graph=True)
    assert total.item() == pytest.approx(expected.item(), rel=1e-9) and count == 9
    assert torch.allclose(torch.autograd.grad(total, student)[0], gradient, atol=1e-12)
    assert relation_loss(teacher, teacher, 4, weights, causal=causal)[0].abs() < 1e-12


def test_relation_heads_divide_all_widths():
    assert relation_heads(256, 128) == 64 and relation_heads(24, 36) == 12 and relation_heads(7, 13) == 1
