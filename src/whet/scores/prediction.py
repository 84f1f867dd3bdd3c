"""What a grid will cost on a linear, predicted without solving: KL in nats a token.

A change Δ of a linear costs KL ≈ ½ E[(g·Δx)²] per predicted token (`walk.gradients`). With outputs taken as
independent of each other and of the inputs, that is ½ Σ_r s_r Δ_r H Δ_rᵀ: `s_r` the mean squared gradient of output r,
H = E[x xᵀ]. GPTQ does not pay Δ_r H Δ_rᵀ for rounding to nearest: in its LDL form it pays Σ_c D_c e_rc², `e` the plain
rounding error of a column and D the pivots of H (`quantize.gptq`). So nearest rounding on parameters fitted with
weights D, and D itself, tell what GPTQ costs on every grid without running it; what descent still takes off, and what
the two independences are wrong by, is learnt from two grids on a few rows (`gains`).

Against the KL measured with one linear changed at a time, `bench/scoring.py` prints the rank correlation of this, of
its parts left out, and of other scorers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids import Grid
from whet.quantize.gptq import factorize
from whet.quantize.nearest import nearest

# Weights of one linear that a grid is tried on; more rows than that are sampled.
_TRIED, TRIED_ROWS = 1 << 13, 24
_ORDERED = 64  # pivots depend a little on the groups of the visiting order; this one serves all grids
_DAMP = 0.01


def pivots(h: Tensor) -> Tensor:
    """Pivots D `[in]` of the second moment `h [in, in]` in GPTQ's visiting order; the diagonal where it has none."""
    columns = len(h)
    groups = [(start, min(start + _ORDERED, columns)) for start in range(0, columns, _ORDERED)]
    factor = factorize(h, groups, _DAMP)
    if factor is None:
        return h.diagonal().clone()
    return factor.by_column()


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


@dataclass(frozen=True)
class Tried:
    """Rows of a linear that grids are tried on: `part [n, in]`, pivots `d [in]`, what the error of each row costs
    `weight [n]`, and by bits what is paid over what pivots tell, `gain`."""

    part: Tensor
    d: Tensor
    weight: Tensor
    grids: Sequence[Grid]
    gain: Mapping[int, float]

    @classmethod
    def of(cls, w: Tensor, d: Tensor, s: Tensor, grids: Sequence[Grid], gain: Mapping[int, float]) -> Tried:
        """Of `w [out, in]` with mean squared gradients `s [out]` per counted token."""
        rows = Rows.stand_for(s * (w.square() @ d), max(TRIED_ROWS, _TRIED // w.shape[1]))
        return cls(w[rows.index], d, s[rows.index] * rows.weight, grids, gain)


def losses(tried: Sequence[Tried]) -> list[list[float]]:
    """Predicted KL of GPTQ for each of `tried` on each of its grids. Rows of one width are rounded together: one at a
    time, most of the time would go to starting operations on little."""
    found: list[dict[str, float]] = [{} for _ in tried]
    alike: dict[tuple[int, str, int | None], list[int]] = {}
    grids: dict[str, Grid] = {}
    for i, one in enumerate(tried):
        for grid in one.grids:
            alone = None if grid.rows == 1 else i  # rows that share a scale stay with their own
            alike.setdefault((len(one.d), grid.name, alone), []).append(i)
            grids[grid.name] = grid
    for (_, name, _), some in alike.items():
        grid = grids[name]
        part = torch.cat([tried[i].part for i in some])
        d = torch.cat([tried[i].d.expand_as(tried[i].part) for i in some])
        solution = nearest(part, d, grid)
        lost = ((part - grid.decode(solution.codes, solution.params)).square_() * d).sum(1)
        for i, rows in zip(some, lost.split([len(tried[i].part) for i in some]), strict=True):
            found[i][name] = 0.5 * tried[i].gain.get(grid.bits, 1.0) * float(rows @ tried[i].weight)
    return [[mine[grid.name] for grid in one.grids] for mine, one in zip(found, tried, strict=True)]


def linear_losses(w: Tensor, d: Tensor, s: Tensor, grids: Sequence[Grid], gain: Mapping[int, float]) -> list[float]:
    """Predicted KL of GPTQ on each of `grids` for `w [out, in]`.

    d: pivots `[in]` of the inputs' second moment. s: mean squared gradient `[out]` per counted token. gain: by bits,
    what is paid over what pivots tell (`gains`).
    """
    return losses([Tried.of(w, d, s, grids, gain)])[0]
