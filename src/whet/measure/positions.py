"""KL by position: what a cache in few bits loses grows with what is looked back on, which a mean over text hides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BUCKETS = 4


def by_position(kl: NDArray[np.float32], windows: Sequence[Tensor], buckets: int = BUCKETS) -> list[dict[str, Any]]:
    """Mean KL of tokens by where in their window they stand, in `buckets` of equal width up to the longest window:
    `start`, `end` (not in it), `tokens` and `kl`. kl: a token that has a next one, window after window."""
    places = np.concatenate([np.arange(len(window) - 1) for window in windows])
    edges = np.linspace(0, places.max() + 1, min(buckets, int(places.max()) + 1) + 1).astype(int)
    found = []
    for start, end in itertools.pairwise(edges):
        here = kl[(places >= start) & (places < end)]
        found.append({"start": int(start), "end": int(end), "tokens": len(here), "kl": float(here.mean())})
    return found
