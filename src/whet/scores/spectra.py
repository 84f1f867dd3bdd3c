"""How many directions a linear's output really uses."""

from __future__ import annotations

import torch
from torch import Tensor

KEPT = 0.9


def rank_share(w: Tensor, h: Tensor) -> float:
    """The smallest rank that holds KEPT of the output's energy, as a share of the full rank: in (0, 1].

    w: `[out, in]`. h: second moment `[in, in]` of the inputs. The energies are the eigenvalues of W H Wᵀ, computed on
    the smaller side. A small share says that a factorization by the activations (ASVD, SVD-LLM) would be cheap here.
    """
    if w.shape[0] <= w.shape[1]:
        energy = torch.linalg.eigvalsh(w @ h @ w.t())
    else:
        values, vectors = torch.linalg.eigh(h)
        root = vectors * values.clamp_min(0).sqrt()
        energy = torch.linalg.eigvalsh(root.t() @ (w.t() @ w) @ root)
    energy = energy.clamp_min(0).flip(0)
    total = energy.sum()
    if not total > 0:
        return 1.0
    needed = int((energy.cumsum(0) < KEPT * total).sum()) + 1
    return min(1.0, needed / len(energy))
