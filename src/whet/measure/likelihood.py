"""How likely a model finds texts: the mean surprise of a token, window by window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whet.engines import Engine
from whet.errors import UsageError
from whet.measure.divergence import CHUNK
from whet.text import batch_indices


def surprise(engine: Engine, windows: Sequence[Tensor], batch_tokens: int = 2048) -> NDArray[np.float32]:
    """Mean -log p of the tokens of each window after its first, in nats, [n]; windows are int64 [L >= 2].

    Raises UsageError where the model gives a logit that is not finite, or a window has a token it lacks.
    """
    out = np.zeros(len(windows), np.float32)
    at_once = max(1, CHUNK // engine.vocabulary)
    for group in batch_indices([len(window) for window in windows], batch_tokens):
        batch = torch.stack([windows[i] for i in group])
        sums, position = np.zeros(len(group)), 0
        for logits in engine.logit_chunks(batch, at_once):
            count = min(logits.shape[1], batch.shape[1] - 1 - position)
            if count <= 0:
                break
            tokens = batch[:, position + 1 : position + 1 + count, None].to(logits.device)
            shares = torch.log_softmax(logits[:, :count].float(), dim=-1).gather(-1, tokens)[..., 0]
            sums -= shares.double().sum(-1).cpu().numpy()
            position += count
        out[group] = sums / (batch.shape[1] - 1)
    if not np.isfinite(out).all():
        raise UsageError(
            "{folder} gives logits that are not finite. Its weights are broken, or its type overflows.",
            folder=engine.folder,
        )
    return out
