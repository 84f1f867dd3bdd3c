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
- The rows of a slice of some million weights move at once, with all their candidates; the other loop is over columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids import CodedGrid, Grid, Params
from whet.grids.least_squares import pooled
from whet.messages import Message
from whet.quantize.descent import descend
from whet.quantize.nearest import nearest
from whet.quantize.reconstruct import reconstruct
from whet.quantize.solution import COLUMNS, Solution, masked_codes, row_slices, steering_type

# Wider groups take their scale from the weighted fit alone: it hardly depends on the few errors fed forward.
_JOINT_GROUP = 256
_BLOCK = 128
_WIDE = 4096
# Candidates times columns carried through a group: wider groups gain less from the choice and take fewer.
_CARRIED = 512
_TURNED = 1 << 20


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

    h: second moment `[in, in]` of the inputs, float32. mask: bool `[out, in]`, False where the weight must be 0: then
    what is rounded are the weights that make up for that best (`reconstruct`). Errors fed forward would make up for it
    in later columns alone, and KL of the embedded model at 2:4 and 4 bits was 0.057 with that and 0.044 so.
    damp: added to the diagonal, as a share of its mean, tenfold again while the factorisation fails; when it fails even
    at 1 the linear is rounded to nearest and a note says so. candidates: parameter sets carried through a group
    of up to 64 columns, fewer through wider ones. sweeps: at most so many passes of coordinate descent afterwards; 0
    leaves GPTQ's own solution.
    """
    w = w.float()
    if mask is not None:
        w = reconstruct(w, h, mask)
    coded = grid.coded
    if coded is None:
        return nearest(w, h, grid, mask)
    columns = w.shape[1]
    groups = grid.groups(columns)
    factor = factorize(h, groups, damp)
    if factor is None:
        solution = nearest(w, h, grid, mask)
        solution.notes.append(Message("second moment could not be factorised at any damping: rounded to nearest"))
        return solution
    damping = factor.damping
    costs = factor.by_column()
    shared = coded.shared(w, costs if mask is None else costs * mask)
    forward = _Forward(coded, groups, factor, steering_type(w), candidates)
    del factor  # and the better half of its memory
    parts = [
        forward(w[rows], {k: v[rows] for k, v in shared.items()}, None if mask is None else mask[rows])
        for rows in row_slices(w, grid.rows)
    ]
    del forward
    solution = Solution.of_rows(parts)
    if damping > damp:
        solution.notes.append(Message("damping raised from {old:g} to {new:g}", old=damp, new=damping))
    if sweeps:
        if damping > damp:  # an h that is not definite would send descent away from w for ever
            h = h + damping * h.diagonal().mean() * torch.eye(columns, device=h.device)
        descend(w, h, coded, solution, mask, sweeps=sweeps)
    return solution


class _Forward:
    """GPTQ itself, a slice of rows at a time: columns rounded one after another, their errors fed forward.

    Of M it keeps what is within the columns that are rounded together as it is, all of it in the type that steers.
    """

    def __init__(
        self, grid: CodedGrid, groups: list[tuple[int, int]], factor: Factor, steering: torch.dtype, candidates: int
    ) -> None:
        self.grid, self.groups, self.candidates = grid, groups, candidates
        self.order, self.visit, self.pivots = factor.order, factor.visit, factor.pivots
        self.feed = factor.feed.to(steering)
        self.spans: dict[int, list[tuple[int, int]]] = {}  # of each group in visiting order, what is rounded together
        position = 0
        for index in self.visit:
            size = groups[index][1] - groups[index][0]
            step = size if size <= _JOINT_GROUP else _BLOCK
            end = position + size
            self.spans[index] = [(start, min(start + step, end)) for start in range(position, end, step)]
            position = end
        self.within = {a: factor.feed[a:b, a:b].clone() for spans in self.spans.values() for a, b in spans}

    def __call__(self, w: Tensor, shared: Params, mask: Tensor | None) -> Solution:
        """`w [out, in]` rounded; shared: what groups share, `[out, ...]`."""
        grid, feed = self.grid, self.feed
        kept = None if mask is None else mask.t()[self.order]
        target = w.t().contiguous()[self.order]
        residual = torch.zeros_like(target, dtype=feed.dtype)
        codes = torch.empty_like(target, dtype=torch.uint8)
        shared = {k: v.t() for k, v in shared.items()}
        chosen: dict[int, Params] = {}
        for index in self.visit:
            spans = self.spans[index]
            position, end = spans[0][0], spans[-1][1]
            size, joint = end - position, len(spans) == 1
            aim = target[position:end]
            if joint:
                aim = aim + feed[:position, position:end].t() @ residual[:position]
            importance = self.pivots[position:end]
            if kept is not None:
                importance = importance * kept[position:end].t()
            count = min(self.candidates, max(1, _CARRIED // size)) if joint else 1
            params = grid.candidates(aim.t(), importance, count, grid.group_params(shared, index))
            for start, stop in spans:
                if not joint:
                    aim = target[start:stop] + feed[:start, start:stop].t() @ residual[:start]
                codes[start:stop], residual[start:stop], best = _round_columns(
                    target[start:stop],
                    aim,
                    self.within[start],
                    self.pivots[start:stop],
                    grid,
                    params,
                    None if kept is None else kept[start:stop],
                )
            chosen[index] = {k: v.gather(0, best[None])[0] for k, v in params.items()}
        unordered = torch.empty_like(codes)
        unordered[self.order] = codes
        parameters = {k: torch.stack([chosen[g][k] for g in range(len(self.groups))], dim=1) for k in chosen[0]}
        parameters |= {k: v.t().contiguous() for k, v in shared.items()}
        return Solution(unordered.t().contiguous(), parameters)


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
            # one matrix beside h, as a wide one is the largest thing in memory: filled a few rows at a time, and laid
            # out by columns, which LAPACK takes as it is
            lower = h.new_empty(h.shape, dtype=dtype).t()
            for start in range(0, len(h), _BLOCK):
                lower.t()[start : start + _BLOCK] = h[back[start : start + _BLOCK]].index_select(1, back)
            lower.diagonal()[dead[back]] = mean.to(dtype) if mean > 0 else 1.0
            lower.diagonal().add_(damp * mean)
            info = torch.zeros((), dtype=torch.int32, device=h.device)
            torch.linalg.cholesky_ex(lower, out=(lower, info))
            if info.item() == 0 and torch.isfinite(lower.diagonal()).all():
                root = lower.diagonal().flip(0)
                feed = _turned(lower.div_(lower.diagonal().clone()).float())
                return Factor(order, visit, feed, root.square().float(), damp)
        damp = max(damp * 10, 1e-4)
    return None


def _turned(square: Tensor) -> Tensor:
    """`square [n, n]` with the order of its rows and of its columns reversed, in place."""
    flat = square.t().reshape(-1) if square.t().is_contiguous() else square.contiguous().view(-1)
    for start in range(0, len(flat) // 2, _TURNED):
        stop = min(start + _TURNED, len(flat) // 2)
        front, back = flat[start:stop], flat[len(flat) - stop : len(flat) - start]
        kept = front.clone()
        front.copy_(back.flip(0))
        back.copy_(kept.flip(0))
    turned = flat.view(square.shape)
    return turned.t() if square.t().is_contiguous() else turned


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
