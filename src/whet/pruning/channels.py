"""Which columns of a linear stay, alone or in groups of neighbours: what each is worth, and the best to keep.

A unit is a column (a channel of a feed-forward) or `size` neighbouring ones (those of a key and value head). A score is
a function `(w [out, in], h [in, in], count) -> [count]`, float32, of which only the order counts; h is the second
moment of the linear's inputs. `obs` is none: it takes one unit after another, because what each is worth then changes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor, int], Tensor]
_DAMP = 0.01  # of the mean diagonal
_WIDE = 4096  # inputs above which double precision would take the most memory of all
_TOGETHER = 64  # channels that `obs` takes at once, at the most, and never more than a share of those left
_SHARE = 64


def magnitude(w: Tensor, h: Tensor, count: int) -> Tensor:
    """Σ w²: what a unit is worth where all inputs are alike."""
    return _summed(w.square().sum(0), count)


def activation(w: Tensor, h: Tensor, count: int) -> Tensor:
    """Σ E[x²]: how much a unit gives (Minitron, Muralidharan et al. 2024, arXiv 2407.14679, which takes the mean of |x|
    over a text first)."""
    return _summed(h.diagonal(), count)


def wanda(w: Tensor, h: Tensor, count: int) -> Tensor:
    """Σ E[x²] w²: what taking a unit costs while the others stay (Sun et al. 2023, arXiv 2306.11695, by columns)."""
    return _summed(h.diagonal() * w.square().sum(0), count)


def leverage(w: Tensor, h: Tensor, count: int) -> Tensor:
    """Σ [h (h + λ)⁻¹]_jj |w_j|: how far the other inputs cannot stand in for a unit (MoDeGPT, Lin et al. 2024, arXiv
    2408.09632), times the length of its column."""
    inverse = _inverse(h)
    own = 1 - _damping(h) * inverse.diagonal()
    return _summed(own.clamp_min(0).to(w.dtype) * w.square().sum(0).sqrt(), count)


SCORES: dict[str, Score] = {
    "magnitude": magnitude,
    "activation": activation,
    "wanda": wanda,
    "leverage": leverage,
}
OBS = "obs"
CHANNEL_IMPORTANCES = (*SCORES, OBS)


def best_units(importance: str, w: Tensor, h: Tensor, count: int, keep: int) -> list[int]:
    """The `keep` of `count` units of `w [out, in]` that are worth most, ascending; of equal ones the first."""
    if keep >= count:
        return list(range(count))
    if importance == OBS:
        return sorted(set(range(count)) - set(obs(w, h, count, keep)))
    return sorted(_by_score(importance, w, h, count)[:keep])


def ordered_units(importance: str, w: Tensor, h: Tensor, count: int) -> list[int]:
    """All `count` units of `w [out, in]`, those that are worth most first: however many are kept, the first of them are
    `best_units`."""
    return obs(w, h, count, 0)[::-1] if importance == OBS else _by_score(importance, w, h, count)


def _by_score(importance: str, w: Tensor, h: Tensor, count: int) -> list[int]:
    return SCORES[importance](w, h, count).double().argsort(descending=True, stable=True).tolist()


def obs(w: Tensor, h: Tensor, count: int, keep: int) -> list[int]:
    """Units in the order in which they are taken until `keep` are left: one after another that of the least loss, and
    those that stay make up for each. However many are to be left, the first ones taken are the same.

    The loss of unit u is tr(w_u [P_uu]⁻¹ w_uᵀ) with P = (h + λ)⁻¹, once all others have made up for it; then w and P
    are those without it (optimal brain surgeon: Hassibi & Stork 1992; for structures Kurtic et al. 2023, ZipLM, arXiv
    2302.04089). Of many channels, some of the cheapest go together.
    """
    size = w.shape[1] // count
    p, w = _inverse(h), w.to(torch.float64 if len(h) <= _WIDE else torch.float32)
    # the loss needs the inner products of columns alone, which are no wider than the inputs
    alive = torch.ones(count, dtype=torch.bool, device=w.device)
    w = w.clone()
    taken: list[int] = []
    while (left := count - len(taken)) > keep:
        loss = _losses(w, p, size)
        loss[~alive] = torch.inf
        number = 1 if size > 1 else min(left - keep, _TOGETHER, max(1, left // _SHARE))
        gone = loss.argsort(stable=True)[:number]
        alive[gone] = False
        taken += gone.tolist()
        at = (gone[:, None] * size + torch.arange(size, device=w.device)).reshape(-1)
        moved = torch.linalg.solve(p[at][:, at], p[at])
        w -= w[:, at] @ moved
        p -= p[:, at] @ moved
        p[at, at] = 1.0  # never asked for again, and invertible
    return taken


def _losses(w: Tensor, p: Tensor, size: int) -> Tensor:
    """tr(w_u [P_uu]⁻¹ w_uᵀ) of every unit."""
    if size == 1:
        return w.square().sum(0) / p.diagonal().clamp_min(torch.finfo(p.dtype).tiny)
    count = w.shape[1] // size
    own = torch.stack([p[i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(count)])
    mine = w.reshape(len(w), count, size).permute(1, 2, 0)  # [count, size, out]
    return (mine * torch.linalg.solve(own, mine)).sum((1, 2))


def _inverse(h: Tensor) -> Tensor:
    """(h + λ)⁻¹, in double precision where that is small enough. λ is 1 % of the mean diagonal, and ten times as much
    again while there is no Cholesky factor."""
    damping = _damping(h)
    while True:
        damped = h.to(torch.float64 if len(h) <= _WIDE else torch.float32, copy=True)
        damped.diagonal().add_(damping)
        lower, info = torch.linalg.cholesky_ex(damped)
        if info.item() == 0 and torch.isfinite(lower.diagonal()).all():
            return torch.cholesky_inverse(lower)
        damping *= 10


def _damping(h: Tensor) -> float:
    return max(_DAMP * h.diagonal().mean().item(), 1e-12)


def _summed(each: Tensor, count: int) -> Tensor:
    return each.reshape(count, -1).sum(1)
