"""GPTQ on any grid, in its LDL form, with scales chosen by the loss GPTQ itself will pay.

Rounding `w [out, in]` to minimise tr(R H Rᵀ), R = w − q: with H = M D Mᵀ, M unit upper triangular, the loss is
Σ_c D_cc (x_c − q_c)² where x_c = w_c + Σ_{j<c} R_j M_jc, so a column is rounded after the errors of the columns before
it were fed forward (Frantar et al. 2022, arXiv 2210.17323; in LDL form Chee et al. 2023, arXiv 2307.13304). H is never
inverted: one Cholesky factorisation of the flipped matrix gives M and D.

Notable:

- Groups are visited from the most to the least important, columns within a group likewise: the gain of act-order
  without a `g_idx`, because a group is never split.
- Scales are fresh and joint: when a group is reached, several candidate parameter sets are carried through its columns
  side by side, and each row keeps the one with the least loss actually paid.
- Afterwards `descent` moves single codes and refits scales in closed form on the same objective.
- Every row and candidate moves at once; the only loop is over columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids.floats import FloatGrid
from whet.grids.grouped import Params
from whet.grids.least_squares import pooled
from whet.grids.schemes import CodedGrid, Grid
from whet.quantize.descent import descend
from whet.quantize.nearest import nearest
from whet.quantize.solution import COLUMNS, Solution, masked_codes
from whet.quantize.steering import steering_type

# Wider groups take their scale from the weighted fit alone: it hardly depends on the few errors fed forward.
_JOINT_GROUP = 256
_BLOCK = 128
_WIDE = 4096
# Candidates times columns carried through a group: wider groups gain less from the choice and take fewer.
_CARRIED = 512


@dataclass(frozen=True)
class Factor:
    """H in visiting order: `order [in]` of columns, `feed [in, in]` = M, `pivots [in]` = D, the `damping` needed."""

    order: Tensor
    visit: list[int]
    feed: Tensor
    pivots: Tensor
    damping: float

    def by_column(self) -> Tensor:
        """The pivots `[in]` in the order of the columns: what an error costs in each."""
        found = torch.empty_like(self.pivots)
        found[self.order] = self.pivots
        return found


def gptq(
    w: Tensor,
    h: Tensor,
    grid: Grid,
    mask: Tensor | None = None,
    *,
    damp: float = 0.01,
    candidates: int = 8,
    sweeps: int = 4,
) -> Solution:
    """Round `w [out, in]` onto `grid` so that tr((w − q) h (w − q)ᵀ) is small.

    h: second moment `[in, in]` of the inputs, float32. mask: bool `[out, in]`, False where the weight must be 0.
    damp: added to the diagonal, as a share of its mean, tenfold again while the factorisation fails; when it fails even
    at 1 the linear is rounded to nearest and a note says so. candidates: parameter sets carried through a group
    of up to 64 columns, fewer through wider ones. sweeps: at most so many passes of coordinate descent afterwards; 0
    leaves GPTQ's own solution.
    """
    if isinstance(grid, FloatGrid):
        return nearest(w, h, grid, mask)
    w = w.float()
    columns = w.shape[1]
    groups = grid.groups(columns)
    factor = factorize(h, groups, damp)
    if factor is None:
        solution = nearest(w, h, grid, mask)
        solution.notes.append("second moment could not be factorised at any damping: rounded to nearest")
        return solution
    notes = [] if factor.damping == damp else [f"damping raised from {damp:g} to {factor.damping:g}"]
    kept = None if mask is None else mask.t()[factor.order]
    target = w.t().contiguous()[factor.order]
    residual = torch.zeros_like(target, dtype=steering_type(w))
    feed = factor.feed.to(residual.dtype)
    codes = torch.empty_like(target, dtype=torch.uint8)
    costs = factor.by_column()
    shared = {k: v.t() for k, v in grid.shared(w, costs if mask is None else costs * mask).items()}
    chosen: dict[int, Params] = {}
    position = 0
    for index in factor.visit:
        size = groups[index][1] - groups[index][0]
        end = position + size
        joint = size <= _JOINT_GROUP
        aim = target[position:end]
        if joint:
            aim = aim + feed[:position, position:end].t() @ residual[:position]
        importance = factor.pivots[position:end]
        if kept is not None:
            importance = importance * kept[position:end].t()
        count = min(candidates, max(1, _CARRIED // size)) if joint else 1
        params = grid.candidates(aim.t(), importance, count, grid.group_params(shared, index))
        for start in range(position, end, size if joint else _BLOCK):
            stop = min(start + (size if joint else _BLOCK), end)
            if not joint:
                aim = target[start:stop] + feed[:start, start:stop].t() @ residual[:start]
            found = _round_columns(
                target[start:stop],
                aim,
                factor.feed[start:stop, start:stop],
                factor.pivots[start:stop],
                grid,
                params,
                None if kept is None else kept[start:stop],
            )
            codes[start:stop], residual[start:stop], best = found
        chosen[index] = {k: v.gather(0, best[None])[0] for k, v in params.items()}
        position = end
    unordered = torch.empty_like(codes)
    unordered[factor.order] = codes
    parameters = {k: torch.stack([chosen[g][k] for g in range(len(groups))], dim=1) for k in chosen[0]}
    parameters |= {k: v.t().contiguous() for k, v in shared.items()}
    solution = Solution(unordered.t().contiguous(), parameters, notes)
    if sweeps:
        if factor.damping > damp:  # an h that is not definite would send descent away from w for ever
            h = h + factor.damping * h.diagonal().mean() * torch.eye(columns, device=h.device)
        descend(w, h, grid, solution, mask, sweeps=sweeps)
    return solution


def factorize(h: Tensor, groups: list[tuple[int, int]], damp: float) -> Factor | None:
    """Factor the damped second moment `h [in, in]` in visiting order; None if no damping up to 1 makes it definite.

    Columns that never fired (diagonal 0) get the mean: they cost nothing and are rounded to nearest.
    """
    diagonal = h.diagonal().clone()
    mean = diagonal.mean()
    dead = diagonal <= 0
    weight = torch.stack([diagonal[a:b].mean() for a, b in groups])
    visit = weight.argsort(descending=True, stable=True).tolist()
    order = torch.cat(
        [groups[g][0] + diagonal[groups[g][0] : groups[g][1]].argsort(descending=True, stable=True) for g in visit]
    )
    back = order.flip(0)
    while damp <= 1:
        # single precision is enough for nearly every matrix, and the cubic cost of double shows in wide ones only
        for dtype in (torch.float32, torch.float64) if len(h) > _WIDE else (torch.float64,):
            flipped = h[back].index_select(1, back).to(dtype)
            flipped.diagonal()[dead[back]] = mean.to(dtype) if mean > 0 else 1.0
            flipped.diagonal().add_(damp * mean)
            lower, info = torch.linalg.cholesky_ex(flipped)
            if info.item() == 0 and torch.isfinite(lower.diagonal()).all():
                root = lower.diagonal().flip(0)
                feed = lower.div_(lower.diagonal().clone()).float().flip(0, 1)
                return Factor(order, visit, feed, root.square().float(), damp)
        damp = max(damp * 10, 1e-4)
    return None


def _round_columns(
    target: Tensor, aim: Tensor, feed: Tensor, pivots: Tensor, grid: CodedGrid, params: Params, kept: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Round `size` columns one after another under each of the candidate `params [candidates, out]`.

    target, aim: `[size, out]`, original weights and the same with earlier errors fed forward. Returns codes and
    residuals `[size, out]` of each row's best candidate, and its index `[out]`.
    """
    size, rows = target.shape
    count = len(params["scale"])
    flat = {k: v.reshape(-1) for k, v in params.items()}
    levels = grid.bind(flat)
    aims = aim.repeat(1, count)
    residual = torch.empty_like(aims)
    codes = torch.empty_like(aims)
    loss = aims.new_zeros(count * rows)
    weights = pivots.tolist()
    for start in range(0, size, COLUMNS):
        stop = min(start + COLUMNS, size)
        if start:
            aims[start:stop].addmm_(feed[:start, start:stop].t(), residual[:start])
        for c in range(start, stop):
            x = aims[c].addmv_(residual[start:c].t(), feed[start:c, c]) if c > start else aims[c]
            levels.codes(x, out=codes[c])
            if kept is not None:
                codes[c] = masked_codes(codes[c], flat, grid, kept[c].repeat(count))
            value = levels.value(codes[c])
            torch.sub(target[c], value.view(count, rows), out=residual[c].view(count, rows))
            off = value.sub_(x)
            loss.addcmul_(off, off, value=weights[c])
    best = pooled(loss.view(count, rows), grid.rows).argmin(0)
    pick = best * rows + torch.arange(rows, device=best.device)
    return codes[:, pick].to(torch.uint8), residual[:, pick], best
