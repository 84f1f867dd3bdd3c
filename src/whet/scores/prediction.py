"""What a grid will cost on a linear, predicted without solving: KL in nats a token.

A change Δ of a linear costs KL ≈ ½ E[(g·Δx)²] per predicted token (`walk.gradients`). With outputs taken as
independent of each other and of the inputs, that is ½ Σ_r s_r Δ_r H Δ_rᵀ: `s_r` the mean squared gradient of output r,
H = E[x xᵀ]. GPTQ does not pay Δ_r H Δ_rᵀ for rounding to nearest: in its LDL form it pays Σ_c D_c e_rc², `e` the plain
rounding error of a column and D the pivots of H (`quantize.gptq`). So nearest rounding on parameters fitted with
weights D, and D itself, tell what GPTQ costs on every grid without running it; what its last step, descent, still takes
off is learnt from two grids on a few rows (`gains`).

Against the KL measured with one linear changed at a time, `bench/scoring.py` prints the rank correlation of this, of
its parts left out, and of other scorers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids import Grid, IntegerGrid
from whet.quantize.gptq import factorize, gptq
from whet.quantize.nearest import nearest

# Weights of one linear that a grid is tried on, and of a table; more rows than that are sampled.
_TRIED, _TRIED_ROWS = 1 << 13, 24
_TRIED_TABLE = 1 << 15
_ORDERED = 64  # pivots depend a little on the groups of the visiting order; this one serves all grids
_DAMP = 0.01
_SOLVED = 96  # rows that descent's gain is learnt from
_LEARNT = ((2, 64), (4, 64))  # bits and groups
_PAID = 512


def pivots(h: Tensor) -> Tensor:
    """Pivots D `[in]` of the second moment `h [in, in]` in GPTQ's visiting order; the diagonal where it has none."""
    columns = len(h)
    groups = [(start, min(start + _ORDERED, columns)) for start in range(0, columns, _ORDERED)]
    factor = factorize(h, groups, _DAMP)
    if factor is None:
        return h.diagonal().clone()
    found = torch.empty_like(factor.pivots)
    found[factor.order] = factor.pivots
    return found


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix that stand for all: `index [n]` and how much each counts, `weight [n]`."""

    index: Tensor
    weight: Tensor

    @classmethod
    def stand_for(cls, size: Tensor, count: int) -> Rows:
        """`count` of the rows of which `size [out]`, non-negative, says about how much each matters.

        Drawn systematically with chances in proportion to `size`; a row that would be drawn more than once is certain.
        Where errors are in proportion to `size`, the weighted sum has no sampling error at all.
        """
        rows = len(size)
        total = size.sum()
        if count >= rows or not total > 0:
            index = torch.arange(rows, device=size.device)[:: max(1, -(-rows // max(count, 1)))]
            return cls(index, torch.full_like(index, rows, dtype=torch.float32) / len(index))
        certain = torch.zeros_like(size, dtype=torch.bool)
        for _ in range(32):  # taking the certain ones out makes others certain
            left = size.masked_fill(certain, 0.0)
            more = ~certain & (left * (count - int(certain.sum())) >= left.sum()) & (left > 0)
            if not more.any():
                break
            certain |= more
        left, room = size.masked_fill(certain, 0.0).double(), count - int(certain.sum())
        sure = certain.nonzero()[:, 0]
        if room <= 0 or not left.sum() > 0:
            return cls(sure, torch.ones_like(sure, dtype=torch.float32))
        along = left.cumsum(0) / left.sum() * room
        points = torch.arange(room, device=size.device, dtype=torch.float64) + 0.5
        drawn = torch.searchsorted(along, points).clamp_(max=rows - 1)
        weight = (left.sum() / room / left[drawn]).float()
        return cls(torch.cat([sure, drawn]), torch.cat([torch.ones_like(sure, dtype=torch.float32), weight]))


def linear_losses(w: Tensor, d: Tensor, s: Tensor, grids: Sequence[Grid], gain: Mapping[int, float]) -> list[float]:
    """Predicted KL of GPTQ on each of `grids` for `w [out, in]`.

    d: pivots `[in]` of the inputs' second moment. s: mean squared gradient `[out]` per counted token. gain: by bits,
    what descent takes off (`gains`).
    """
    rows = Rows.stand_for(s * (w.square() @ d), max(_TRIED_ROWS, _TRIED // w.shape[1]))
    part, weight = w[rows.index], s[rows.index] * rows.weight
    losses = []
    for grid in grids:
        solution = nearest(part, d, grid)
        error = part - grid.decode(solution.codes, solution.params)
        losses.append(0.5 * gain.get(grid.bits, 1.0) * float((error.square_() @ d) @ weight))
    return losses


def paid_loss(error: Tensor, h: Tensor, s: Tensor) -> float:
    """½ Σ_r s_r e_r H e_rᵀ of a solved linear's error `[out, in]`: what was predicted, now that it is known.

    Of many rows it takes every n-th, `_PAID` at most, because all would cost what solving does.
    """
    step = -(-len(error) // _PAID)
    error, s = error[::step], s[::step]
    return 0.5 * step * float((((error @ h) * error).sum(1) * s).sum())


def gains(w: Tensor, h: Tensor, d: Tensor, s: Tensor) -> dict[int, float]:
    """What GPTQ with descent pays over what nearest rounding by pivots tells, by bits (2 to 8).

    w: `[out, in]`, the rows of all linears that read one input; h `[in, in]`, d and s as for `linear_losses`. Two grids
    (_LEARNT) are solved on a few rows; between and beyond them the ratio goes by bits.
    """
    rows = Rows.stand_for(s * (w.square() @ d), _SOLVED)
    part, weight = w[rows.index], s[rows.index] * rows.weight
    known = {}
    for bits, group in _LEARNT:
        grid = IntegerGrid(bits, group, "none")
        solution = gptq(part, h, grid)
        error = part - grid.decode(solution.codes, solution.params)
        paid = float((((error @ h) * error).sum(1) * weight).sum())
        solution = nearest(part, d, grid)
        error = part - grid.decode(solution.codes, solution.params)
        told = float((error.square_() @ d) @ weight)
        known[bits] = paid / told if told > 0 else 1.0
    (low, first), (high, last) = known.items()
    return {bits: first + (last - first) * min(1.0, max(0.0, (bits - low) / (high - low))) for bits in range(2, 9)}


@dataclass(frozen=True)
class TableUse:
    """How the rows of an embedding or head are used, for the KL that a change E of the table costs.

    ½ Σ_v (looked_v · E_v G E_vᵀ + read_v · E_v H E_vᵀ): looked_v is how often a token is looked up per counted token
    and G = E[g gᵀ] the gradient of what was looked up; read_v = E[p_v (1 − p_v)] is the curvature of the prediction in
    a logit and H = E[h hᵀ] of what the head reads. Parts a table does not have are None. metric: `[in, in]`, what its
    solver rounds by; None: to nearest.
    """

    looked: Tensor | None = None
    gradient: Tensor | None = None
    read: Tensor | None = None
    hidden: Tensor | None = None
    metric: Tensor | None = None

    def cost(self, rows: Tensor, e: Tensor) -> Tensor:
        """The cost `[n]` of the errors `e [n, in]` of the rows numbered `rows [n]`."""
        total = e.new_zeros(len(e))
        if self.looked is not None and self.gradient is not None:
            total += self.looked[rows] * ((e @ self.gradient) * e).sum(1)
        if self.read is not None and self.hidden is not None:
            total += self.read[rows] * ((e @ self.hidden) * e).sum(1)
        return 0.5 * total


def tied_metric(hidden: Tensor) -> Tensor:
    """What a tied embedding is rounded by, from the second moment `[hidden, hidden]` of what the head reads.

    Looking a row up spreads its error over all columns alike, reading it as the head weighs them by H; both count the
    same here. On babyllama at 3 bits this loses 17 % less KL than nearest, at 4 bits the same.
    """
    return hidden / hidden.diagonal().mean() + torch.eye(len(hidden), device=hidden.device)


def table_losses(w: Tensor, use: TableUse, grids: Sequence[Grid]) -> list[float]:
    """Predicted KL of each of `grids` on an embedding or head `w [vocabulary, hidden]`, float32.

    There is one table and it is used in two ways, so a sample of its rows is solved as the run will solve it.
    """
    every = torch.arange(len(w), device=w.device)
    rows = Rows.stand_for(use.cost(every, w).clamp_min(0), max(_TRIED_ROWS, _TRIED_TABLE // w.shape[1]))
    part = w[rows.index]
    losses = []
    for grid in grids:
        solution = nearest(part, None, grid) if use.metric is None else gptq(part, use.metric, grid)
        error = part - grid.decode(solution.codes, solution.params)
        losses.append(float(use.cost(rows.index, error) @ rows.weight))
    return losses
