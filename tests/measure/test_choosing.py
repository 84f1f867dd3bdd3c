"""Choosing: what is paired is told apart, what is not is left open, and text counts by the byte whatever the tokens."""

from __future__ import annotations

import numpy as np
import pytest

from whet.measure.choosing import Answers, bits_a_byte, choose_among, difference, quality
from whet.measure.items import Item

ITEMS = [Item("sums", str(i), answer="1") for i in range(400)] + [Item("words", str(i), answer="1") for i in range(100)]


def _model(share: float, rng: np.random.Generator, like: np.ndarray | None = None) -> Answers:
    """Answers right at random, or those of another model with a share of its right ones lost."""
    right = rng.random(len(ITEMS)) < share if like is None else like.astype(bool) & (rng.random(len(ITEMS)) < share)
    return Answers(right.astype(float), np.zeros(0), np.zeros(0))


def test_skills_weigh_alike_however_many_questions_they_have() -> None:
    right = np.array([1.0] * 400 + [0.0] * 100)
    assert quality(Answers(right, np.zeros(0), np.zeros(0)), ITEMS) == 0.5


def test_pairing_tells_what_either_accuracy_alone_does_not() -> None:
    rng = np.random.default_rng(0)
    best = _model(0.7, rng)
    other = _model(0.95, rng, like=best.right)  # never right where the best is wrong
    told = choose_among([other, best], ITEMS)
    assert told.best == 1 and told.sure and told.against[0].better > 0
    assert told.against[0].standard_error < 0.7 * np.hypot(0.021, 0.021)  # of two accuracies unpaired


def test_models_that_are_alike_are_called_so_at_the_promised_rate() -> None:
    rng = np.random.default_rng(1)
    sure = sum(choose_among([_model(0.6, rng), _model(0.6, rng)], ITEMS).sure for _ in range(400))
    assert sure <= 400 * 0.05 + 3 * (400 * 0.05 * 0.95) ** 0.5


def test_the_same_model_twice_is_no_difference() -> None:
    one = _model(0.6, np.random.default_rng(2))
    told = difference(one, one, ITEMS)
    assert (told.better, told.p) == (0.0, 1.0)
    assert choose_among([one, one], ITEMS).tied == [0, 1]


def test_text_counts_by_the_byte() -> None:
    nats, read = np.log(2) * np.array([80.0, 160.0] * 20), np.array([100.0, 100.0] * 20)
    one, other = Answers(np.zeros(0), nats, read), Answers(np.zeros(0), 1.1 * nats, read)
    assert bits_a_byte(one) == pytest.approx(1.2)
    told = difference(one, other, [])
    assert told.better == pytest.approx(0.12) and told.p < 1e-6
    assert choose_among([other, one], []).best == 1
