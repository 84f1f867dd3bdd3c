"""Worth as a draft: the share is what sampling with rejection accepts."""

from __future__ import annotations

import pytest
import torch

from whet.measure.aspects.acceptance import ACCEPTANCE, tokens_a_verification


def test_the_share_is_what_rejection_sampling_accepts() -> None:
    torch.manual_seed(0)
    p, q = (2 * torch.randn(2, 3, 7) for _ in range(2))
    assert ACCEPTANCE.collect is not None
    p, q = p.softmax(-1), q.softmax(-1)
    share = ACCEPTANCE.collect(p, q, torch.zeros(2, 3, dtype=torch.int64))["acceptance"]
    drawn = torch.distributions.Categorical(probs=q).sample((40_000,))
    accepted = (p / q).clamp(max=1).expand(40_000, -1, -1, -1).gather(-1, drawn[..., None])
    torch.testing.assert_close(share, accepted[..., 0].mean(0), atol=0.01, rtol=0)
    assert torch.equal(
        ACCEPTANCE.collect(p, p.clone(), torch.zeros(2, 3))["acceptance"].round(decimals=6), torch.ones(2, 3)
    )


def test_tokens_of_a_draft() -> None:
    assert tokens_a_verification(1.0, 4) == 5 and tokens_a_verification(0.0, 4) == 1
    assert tokens_a_verification(0.5, 2) == pytest.approx(1 + 0.5 + 0.25)
