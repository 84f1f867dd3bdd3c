"""SmoothQuant: what is hard in inputs and in weights is shared between them (Xiao et al. 2022, arXiv 2211.10438)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whet.quantize.readers import Reader, balanced

ALPHA = 0.5


def smooth(readers: Sequence[Reader], alpha: float = ALPHA) -> Tensor:
    """Factors `[in]` for `readers` of one input: s_j = max|x_j|^α / max|w_j|^(1−α), equation 4, around 1."""
    inputs = torch.stack([reader.largest for reader in readers]).amax(0).clamp_min(1e-5)
    weights = torch.stack([reader.w.abs().amax(0) for reader in readers]).amax(0).clamp_min(1e-5)
    return balanced(inputs**alpha / weights ** (1 - alpha))
