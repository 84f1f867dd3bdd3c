"""Targets by random sampling: the format holds what was drawn, and the loss is the full one in expectation."""

from __future__ import annotations

import math

import pytest
import torch

from whet.distillation import DIVERGENCES, Drawn, estimated_kl, prediction_loss, sampled_loss

VOCABULARY, TOKENS = 23, 11


def logits(seed, scale=2.0, tokens=TOKENS):
    return scale * torch.randn(tokens, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(p, draws, seed=0):
    return Drawn.of(p, draws, torch.Generator().manual_seed(seed))


def shares(one, n, vocabulary):
    """What was drawn as a dense table, by hand."""
    table = torch.zeros(n, vocabulary, dtype=torch.float64)
    at = 0
    for position, size in enumerate(one.sizes.tolist()):
        for low, middle, high in one.entries[at : at + size].tolist():
            whole = low | middle << 8 | high << 16
            table[position, whole & 0xFFFFF] += (whole >> 20) + 1
        at += size
    return table / table.sum(-1, keepdim=True)


def test_the_format_holds_what_was_drawn_in_some_forty_bytes_a_token():
    flat = torch.full((40, 1_000_000), -math.log(1e6))
    sure = torch.full((40, 300), -40.0)
    sure[:, 7] = 0.0
    for p, bytes_a_token in [(flat, 1 + 12 * 3), (sure, 1 + 3)]:
        one = drawn(p, 12)
        positions, tokens, times = one.read()
        assert torch.equal(torch.zeros(40).index_add_(0, positions, times.float()), torch.full((40,), 12.0))
        assert one.sizes.nbytes + one.entries.nbytes <= 40 * bytes_a_token
        assert int(tokens.max()) < p.shape[1] and len(tokens) == int(one.sizes.sum())
    many = drawn(sure, 50)  # more than an entry counts
    assert many.sizes.tolist() == [4] * 40 and (many.read()[1] == 7).all()
    assert many.read()[2].view(40, 4).sum(-1).tolist() == [50] * 40
    assert flat.shape[1] > 1 << 16 and torch.equal(drawn(flat, 12).entries, drawn(flat, 12).entries)
    with pytest.raises(ValueError, match="do not fit"):
        drawn(torch.zeros(1, (1 << 20) + 1), 12)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_value_and_gradient_are_the_textbooks_in_parts_or_whole(temperature):
    p = (logits(1) / temperature).log_softmax(-1)
    one = drawn(p, 12)
    table = shares(one, TOKENS, VOCABULARY)
    weights = torch.linspace(0.5, 1.5, TOKENS, dtype=torch.float64)
    naive, mine = logits(2).requires_grad_(), logits(2).requires_grad_()
    q = (naive / temperature).log_softmax(-1)
    entropy = -(p.exp() * p).sum(-1)
    expected = ((-(table * q).sum(-1) - entropy) * weights).sum() * temperature**2
    expected.backward()
    for rows in (1, 3, TOKENS):
        mine.grad = None
        total, count = sampled_loss(
            (mine, lambda x: x), one, weights, VOCABULARY, temperature=temperature, at_once=4 * VOCABULARY * rows
        )
        total.backward()
        assert total.item() == pytest.approx(expected.item(), rel=1e-5) and count == weights.sum()
        assert torch.allclose(mine.grad, naive.grad, rtol=1e-6, atol=1e-9)


def test_the_gradient_is_that_of_the_full_loss_in_expectation_and_its_variance_falls_as_one_over_n():
    teacher, times = logits(3, tokens=3), 6000
    full = logits(4, tokens=3).requires_grad_()
    ones = torch.ones(3, dtype=torch.float64)
    forward = DIVERGENCES["forward"].bound(None)
    total, _ = prediction_loss(forward, (full, lambda x: x), (teacher, lambda x: x), ones, VOCABULARY)
    total.backward()
    spreads = []
    for draws in (3, 12):
        wide = full.detach().repeat(times, 1).requires_grad_()
        one = drawn(teacher.log_softmax(-1).repeat(times, 1), draws)
        each = sampled_loss((wide, lambda x: x), one, torch.ones(3 * times).double(), VOCABULARY)[0]
        each.backward()
        found = wide.grad.view(times, 3, VOCABULARY)
        error = found.std(0) / math.sqrt(times)
        assert ((found.mean(0) - full.grad).abs() <= 5 * error + 1e-9).all()
        assert each.item() / times == pytest.approx(total.item(), rel=0.02)
        spreads.append(found.var(0).sum().item())
    assert spreads[0] / spreads[1] == pytest.approx(4, rel=0.1)


def test_the_likeliest_tokens_alone_would_be_biased_where_samples_are_not():
    """The reason for the format: a teacher that is flat, of which 12 tokens hold little."""
    p = torch.full((1, 400), -math.log(400.0), dtype=torch.float64).repeat(500, 1)
    table = shares(drawn(p, 12), 500, 400).mean(0)
    assert (table - 1 / 400).abs().max() < 5 * math.sqrt(1 / 400 / 12 / 500)


def test_the_kl_that_is_estimated_is_unbiased_never_negative_and_nothing_between_equals():
    p, q = (logits(seed).log_softmax(-1) for seed in (5, 6))
    each = estimated_kl(p, q)
    assert (each >= 0).all()
    assert torch.allclose((p.exp() * each).sum(-1), (p.exp() * (p - q)).sum(-1), rtol=1e-9)
    assert not estimated_kl(p, p).any()
