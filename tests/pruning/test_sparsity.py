"""The rule of a job: masks of the linears of one input, what is kept of those that were there, and what is told."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import pytest
import torch

from whet.pruning import IMPORTANCES, Grouped, Sparsity, Unstructured
from whet.quantize import ROUGH, reconstruct

UPDATE = partial(reconstruct, steps=ROUGH)
PATTERNS = [Unstructured(Fraction(1, 2), "row"), Unstructured(Fraction(3, 5), "matrix"), Grouped(2, 4), Grouped(1, 8)]


def problem(*rows, columns=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(600, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    x = x * torch.logspace(-1, 0.5, columns)[torch.randperm(columns, generator=generator)]
    return [torch.randn(n, columns, generator=generator) for n in rows], x.t() @ x / 600


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("update", [None, UPDATE])
def test_every_linear_has_its_own_mask(pattern, importance, update):
    weights, h = problem(12, 20)
    rule = Sparsity(pattern, importance)
    masks = rule.masks(["a", "b"], weights, h, update)
    for mask, w in zip(masks, weights, strict=True):
        assert mask.shape == w.shape and mask.dtype == torch.bool
        taken = pattern.mask(torch.rand(w.shape))
        assert int(mask.sum()) == int(taken.sum())
    again = rule.masks(["a", "b"], weights, h, update)
    assert all(torch.equal(one, other) for one, other in zip(masks, again, strict=True))
    alone = rule.masks(["b"], weights[1:], h, update)
    assert torch.equal(alone[0], masks[1])  # whoever else reads the input
    if update is None:
        scores = IMPORTANCES[importance].score(weights[0], h)
        assert torch.equal(masks[0], pattern.mask(scores))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_taken_in_stages_less_is_lost(pattern):
    lost = {True: 0.0, False: 0.0}
    for seed in range(4):
        (w,), h = problem(32, seed=seed)
        rule = Sparsity(pattern, "sparsegpt")
        for staged in lost:
            (mask,) = rule.masks(["a"], [w], h, UPDATE if staged else None)
            error = w - reconstruct(w, h, mask)
            lost[staged] += (error @ h * error).sum().item()
    assert lost[True] < lost[False]


def test_zeros_that_are_a_mask_stay_and_others_do_not():
    (a, b), h = problem(8, 8)
    a[:, ::3], b[:, ::3] = 0, 0
    rule = Sparsity(kept={"a": {"pattern": "33%", "importance": "wanda"}})
    masks = rule.masks(["a", "b"], [a, b], h, UPDATE)
    assert torch.equal(masks[0], a != 0) and masks[1].all()
    assert rule.masks(["b"], [b], h, UPDATE) is None and not rule.inputs
    told = rule.told("a", masks[0])
    assert told == {"pattern": "33%", "importance": "wanda", "share": pytest.approx(22 / 64)}
    # and more are taken beside them
    more = Sparsity(Unstructured(Fraction(1, 2), "row"), "magnitude", rule.kept)
    mask = more.masks(["a"], [a], None, None)[0]
    assert not mask[:, ::3].any() and ((~mask).sum(1) == 32).all()
    assert more.told("a", mask) == {"pattern": "50%", "importance": "magnitude", "share": 0.5}
    # but fewer would bring none back
    fewer = Sparsity(Unstructured(Fraction(1, 10), "row"), "magnitude", rule.kept)
    assert torch.equal(fewer.masks(["a"], [a], None, None)[0], a != 0)


def test_looking_at_inputs_loses_less_than_magnitudes():
    """By a wide margin where inputs differ in size; with an update what is made up for counts too."""
    lost = {(name, made_up): 0.0 for name in IMPORTANCES for made_up in (False, True)}
    for seed in range(4):
        (w,), h = problem(32, seed=seed)
        for name, made_up in lost:
            (mask,) = Sparsity(Grouped(2, 4), name).masks(["a"], [w], h, None)
            error = w - (reconstruct(w, h, mask) if made_up else w * mask)
            lost[name, made_up] += (error @ h * error).sum().item()
    for name in ("wanda", "sparsegpt"):
        assert lost[name, False] < 0.5 * lost["magnitude", False]
        assert lost[name, True] < 0.5 * lost["magnitude", True]
    assert all(lost[name, True] < 0.7 * lost[name, False] for name in IMPORTANCES)
