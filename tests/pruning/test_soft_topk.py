"""SoftTopK: shares that sum to k, a gradient that agrees with finite differences, and top-k as its limit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.pruning.soft_topk import hard_topk, soft_topk


@given(st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([0.02, 0.3, 1.0, 5.0]), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_shares_are_from_0_to_1_and_sum_to_k(n, seed, softness, part):
    k = 1 + int(part * (n - 1))
    scores = torch.randn(3, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    shares = soft_topk(scores, k, softness)
    assert ((shares >= 0) & (shares <= 1 + 1e-5)).all()
    assert (shares.sum(-1) - k).abs().max() < 1e-9
    order = scores.argsort(-1)
    assert (shares.gather(-1, order).diff(dim=-1) >= -1e-12).all()  # more for a higher score


@pytest.mark.parametrize("softness", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("k", [1, 5, 11])
def test_the_gradient_agrees_with_finite_differences(k, softness):
    scores = torch.randn(2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(k)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: soft_topk(s, k, softness), scores)


def test_twenty_rounds_of_the_papers_iteration_come_to_the_same():
    scores = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    k, e = 60, 0.4
    b = torch.zeros_like(scores)
    for _ in range(2000):
        a = e * torch.tensor(float(k)).log() - e * torch.logsumexp((scores + b) / e, 0)
        b = (-scores - a).clamp(max=0)
    assert (soft_topk(scores, k, e) - ((scores + a + b) / e).exp()).abs().max() < 1e-4


def test_the_limit_is_the_largest_k_and_all_of_them_are_all():
    scores = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(soft_topk(scores, 9, 1e-4), hard_topk(scores, 9), atol=1e-5)
    assert (soft_topk(scores, 30, 0.5) == 1).all() and (hard_topk(scores, 30) == 1).all()
    assert hard_topk(torch.zeros(5), 2).tolist() == [1, 1, 0, 0, 0]
