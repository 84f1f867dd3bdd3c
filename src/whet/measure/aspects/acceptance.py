"""What the lighter model is worth as a draft of the original: how many of its tokens speculative decoding accepts.

A token drawn from the lighter's distribution q is accepted by the original's p with probability sum min(p, q), at
temperature 1 (Leviathan, Kalman and Matias, Fast Inference from Transformers via Speculative Decoding, ICML 2023,
theorem 3.5). With the mean a of it over positions, a draft of k tokens gives (1 - a^(k + 1)) / (1 - a) tokens for each
verification, as if positions were independent (the same, equation 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whet.events import OnEvent
from whet.measure.aspects.aspect import Aspect, Case, Reading, Sides, found, predicts
from whet.measure.statistics import skewed_ratio
from whet.messages import Message

DRAFTS = (1, 2, 4, 8)  # tokens drafted before each verification


def _collect(p: Tensor, q: Tensor, _: Tensor) -> Mapping[str, Tensor]:
    return {"acceptance": torch.minimum(p, q).sum(-1).clamp_max_(1.0).cpu()}


def tokens_a_verification(share: float, draft: int) -> float:
    """Tokens gained by one run of the original after `draft` drafted ones, each accepted with probability `share`."""
    return draft + 1.0 if share >= 1 else (1 - share ** (draft + 1)) / (1 - share)


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    rejected = 1.0 - sides.collected["acceptance"].astype(np.float64)
    clusters = np.asarray(case.given.clusters)[sides.collected["window"]]
    lost = skewed_ratio(rejected, np.ones_like(rejected), clusters)
    share = 1 - lost.value
    ends = None if lost.interval is None else (max(0.0, 1 - lost.interval[1]), 1 - lost.interval[0])
    gained = {str(draft): tokens_a_verification(share, draft) for draft in DRAFTS}
    return found([Reading("share", share, ends)], tokens_a_verification=gained)


ACCEPTANCE = Aspect(
    "acceptance",
    standard=True,
    title=Message("Worth as a draft"),
    meaning=Message("how many of its tokens the original would accept in speculative decoding"),
    lacking=predicts,
    seconds=lambda case, each: 0.0,
    measure=_measure,
    collect=_collect,
)
