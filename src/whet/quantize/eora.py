"""EoRA: what rounding lost of a linear, put back by two thin matrices; LoRC where nothing is known of its inputs.

Beside the rounded weights Ŵ runs B A of rank r, so that the linear computes Ŵ x + B (A x). Of all such, that one which
makes tr((E − B A) H (E − B A)ᵀ), E = W − Ŵ, as small as it can be (Liu et al. 2024, arXiv 2410.21271; with H = I the
LoRC of ZeroQuant-V2, Yao et al. 2023, arXiv 2303.08302) is the truncated singular value decomposition of E H^½, brought
back by H^-½. With U its leading left singular vectors that product is U Uᵀ E: the loss is orthogonal to U row space and
no inverse of H is left, so an H that is singular, or seen on few tokens, needs no floor and no damping.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Wider problems are solved in single precision: what an eigenvector is off costs its square.
_WIDE = 2048
# Share of the mean diagonal added to H: it tells directions that no input has from each other, and changes others by
# less than they are known.
_FLOOR = 1e-7


def eora(error: Tensor, h: Tensor | None, rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The factors (B `[out, rank]`, A `[rank, in]`) of what is added to rounded weights, in `dtype`, as stored.

    error: W − Ŵ `[out, in]`. h: second moment `[in, in]` of the inputs, or None: all directions alike. rank: at most
    min(out, in). Each direction is spread evenly over both factors. Zeros where there is nothing to repair, or where
    `dtype` is too coarse to.
    """
    rows, columns = error.shape
    exact = torch.float64 if min(rows, columns) <= _WIDE else torch.float32
    e = error.to(exact)
    if h is not None:
        h = h.to(exact)
        h = h + _FLOOR * h.diagonal().mean() * torch.eye(columns, dtype=exact, device=h.device)
    left = _leading(e, h, rank)
    right = left.t() @ e
    size = right.abs().amax(1).clamp(min=torch.finfo(exact).tiny) / left.abs().amax(0)
    b, a = (left * size.sqrt()).to(dtype), (right / size.sqrt()[:, None]).to(dtype)
    after = e - b.to(exact) @ a.to(exact)
    if not _loss(after, h) < _loss(e, h):  # nor where anything is not finite
        return torch.zeros_like(b), torch.zeros_like(a)
    return b, a


def _leading(e: Tensor, h: Tensor | None, rank: int) -> Tensor:
    """The `rank` leading left singular vectors `[out, rank]` of e H^½, from the smaller of its two Gram matrices."""
    rows, columns = e.shape
    if rows <= columns:
        gram = e @ e.t() if h is None else e @ h @ e.t()
        return _top(gram, rank)
    if h is not None:
        values, vectors = torch.linalg.eigh(h)
        e = e @ (vectors * values.clamp(min=0).sqrt())
    return torch.linalg.qr(e @ _top(e.t() @ e, rank)).Q


def _top(gram: Tensor, rank: int) -> Tensor:
    return torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1)


def _loss(e: Tensor, h: Tensor | None) -> float:
    return (e if h is None else e @ h).mul(e).sum().item()
