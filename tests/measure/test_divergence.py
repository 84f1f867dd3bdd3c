"""Divergence: exactly 0 against itself, a brute-force computation otherwise, whatever the batches and chunks."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whet.engines.torch import TorchEngine
from whet.errors import GateError, UsageError
from whet.measure import divergence as room
from whet.measure.divergence import divergence, score_tokens, summarize


@pytest.fixture(scope="module")
def windows():
    torch.manual_seed(2)
    return [torch.randint(2, 258, (n,)) for n in (16, 9, 16, 30, 2, 16)]


def test_a_model_against_itself_is_exactly_zero(original, twin, windows):
    scores = divergence(original, twin, windows)
    assert not scores.kl.any() and scores.agree.all()
    assert np.array_equal(scores.nll_original, scores.nll_lighter)
    found = summarize(scores, range(6))
    assert found["kl"] == {
        "mean": 0.0,
        "standard_error": 0.0,
        "interval": [0.0, 0.0],
        "percentiles": dict.fromkeys(["p50", "p90", "p95", "p99", "p99.9", "max"], 0.0),
    }
    assert found["top1"]["mean"] == 1.0 and found["perplexity"]["ratio"] == {"value": 1.0, "interval": [1.0, 1.0]}


def test_scores_are_those_of_brute_force_in_double_precision(original, lighter, windows):
    scores = divergence(original, lighter, windows, batch_tokens=40)
    kl, agree, nll = [], [], [[], []]
    for window in windows:
        with torch.no_grad():
            a, b = (e.model(window[None]).logits[0, :-1].double().numpy() for e in (original, lighter))
        p, q = scipy.special.softmax(a, axis=-1), scipy.special.softmax(b, axis=-1)
        kl += [sum(pi * math.log(pi / qi) for pi, qi in zip(x, y, strict=True)) for x, y in zip(p, q, strict=True)]
        agree += list(a.argmax(-1) == b.argmax(-1))
        for row, shares in zip(nll, (p, q), strict=True):
            row += [-math.log(shares[t, token]) for t, token in enumerate(window[1:].tolist())]
    assert np.allclose(scores.kl, kl, rtol=1e-3, atol=1e-6) and max(kl) > 0.01
    assert scores.agree.tolist() == agree and 0 < sum(agree) < len(agree)
    assert np.allclose(scores.nll_original, nll[0], rtol=1e-4) and np.allclose(scores.nll_lighter, nll[1], rtol=1e-4)
    assert scores.window.tolist() == [i for i, w in enumerate(windows) for _ in range(len(w) - 1)]

    found = summarize(scores, range(6))
    assert found["kl"]["mean"] == pytest.approx(np.mean(kl), rel=1e-3)
    assert found["perplexity"]["ratio"]["value"] == pytest.approx(math.exp(np.mean(nll[1]) - np.mean(nll[0])), rel=1e-4)
    assert found["perplexity"]["original"] == pytest.approx(math.exp(np.mean(nll[0])), rel=1e-4)


@pytest.mark.parametrize(("batch_tokens", "chunk"), [(1, 1 << 24), (10_000, 1 << 24), (48, 258 * 5), (48, 1)])
def test_batches_and_chunks_do_not_change_the_scores(original, lighter, windows, monkeypatch, batch_tokens, chunk):
    expected = divergence(original, lighter, windows)
    monkeypatch.setattr(room, "CHUNK", chunk)
    found = divergence(original, lighter, windows, batch_tokens=batch_tokens)
    for name in ("kl", "nll_original", "nll_lighter"):
        assert np.allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 3, 7), elements=st.floats(-30, 30, width=32)),
    hnp.arrays(np.float32, (2, 3, 7), elements=st.floats(-30, 30, width=32)),
)
def test_kl_is_not_negative_zero_for_equals_and_right_otherwise(a, b):
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    kl, _, nll, _ = score_tokens(torch.from_numpy(a), torch.from_numpy(b), tokens)
    p = scipy.special.softmax(a.astype(np.float64), axis=-1)
    q = scipy.special.log_softmax(b.astype(np.float64), axis=-1)
    expected = (p * (scipy.special.log_softmax(a.astype(np.float64), axis=-1) - q)).sum(-1)
    assert (kl >= 0).all() and np.allclose(kl, expected, rtol=1e-4, atol=1e-5)
    assert not score_tokens(torch.from_numpy(a), torch.from_numpy(a.copy()), tokens)[0].any()
    assert np.allclose(nll, -scipy.special.log_softmax(a.astype(np.float64), axis=-1)[..., 0], rtol=1e-4, atol=1e-5)


def test_bf16_logits_are_scored_in_fp32():
    torch.manual_seed(0)
    a, b = torch.randn(1, 4, 4000).bfloat16(), torch.randn(1, 4, 4000).bfloat16()
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    assert torch.equal(score_tokens(a, b, tokens)[0], score_tokens(a.float(), b.float(), tokens)[0])


def test_the_error_of_the_perplexity_ratio_is_paired():
    """What both models find hard must cancel: the unpaired error would be a hundred times as long here."""
    rng = np.random.default_rng(0)
    hard = np.repeat(rng.normal(3, 1, size=30), 40).astype(np.float32)
    window = np.repeat(np.arange(30), 40)
    lighter = (hard + rng.normal(0.01, 0.01, size=1200)).astype(np.float32)
    scores = room.TokenScores(np.zeros(1200, np.float32), np.ones(1200, bool), hard, lighter, window, [])
    found = summarize(scores, range(30))["perplexity"]
    assert found["log_ratio"]["standard_error"] < 0.001
    low, high = found["ratio"]["interval"]
    assert low < math.exp(0.01) < high and high - low < 0.003


def test_one_document_gives_figures_without_error_bars(original, lighter, windows):
    found = summarize(divergence(original, lighter, windows), [0] * 6)
    assert found["clusters"] == 1 and found["kl"]["mean"] > 0
    assert found["kl"]["standard_error"] is None and found["kl"]["interval"] is None
    assert found["perplexity"]["ratio"]["interval"] is None


def _changed(engine, change, name="changed"):
    model = copy.deepcopy(engine.model)
    with torch.no_grad():
        change(model)
    return TorchEngine(model, engine.tokenizer, name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_name_the_model_and_the_window(original, windows, value):
    def poison(model):
        model.model.embed_tokens.weight[int(windows[3][20])] = value

    broken = _changed(original, poison)
    with pytest.raises(GateError, match=r"changed \(the lighter model\): a logit is not finite in window \d"):
        divergence(original, broken, windows)
    with pytest.raises(UsageError, match=r"changed \(the original\): a logit is not finite in window \d"):
        divergence(broken, original, windows)


def test_padded_vocabularies_are_cut_to_the_common_width_and_said(original, twin, windows):
    wide = _changed(original, lambda m: m.resize_token_embeddings(320, mean_resizing=False))
    scores = divergence(original, wide, windows)
    assert np.abs(scores.kl).max() < 1e-6 and scores.agree.all()
    assert scores.notes == ["The original's vocabulary is 258 wide, the lighter's 320; the first 258 are compared."]
    assert divergence(original, twin, windows).notes == []
    narrow = _changed(original, lambda m: m.resize_token_embeddings(100))
    with pytest.raises(UsageError, match="share only the first 100"):
        divergence(original, narrow, windows)


def test_a_large_vocabulary_is_asked_for_few_positions_at_once():
    class Wide:
        """An engine of 150,000 words that writes down how many positions it was asked for."""

        vocabulary, folder = 150_000, "wide"

        def __init__(self):
            self.asked = []

        def logit_chunks(self, batch, tokens_at_once):
            self.asked.append(tokens_at_once)
            for part in batch.split(max(1, tokens_at_once // batch.shape[0]), dim=1):
                yield torch.nn.functional.one_hot(part, self.vocabulary).float()

    one, other = Wide(), Wide()
    scores = divergence(one, other, [torch.arange(60)] * 2, batch_tokens=4096)
    assert max(one.asked) * one.vocabulary * 4 <= 64 << 20
    assert len(scores.kl) == 118 and not scores.kl.any()


def test_no_windows_is_an_error(original, twin):
    with pytest.raises(UsageError, match="no window"):
        divergence(original, twin, [])
