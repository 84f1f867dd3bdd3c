"""Coordinate descent on a rounded linear: single codes, then scales and zeros, until no move helps.

On the full second moment H, with R = w − q the objective is tr(R H Rᵀ). Moving one weight by d changes its row's
objective by −2 d p + d² H_cc, p = (R H)_c, so the best code is the one nearest to q_c + p / H_cc: an exact step. Moving
a group's scale by d along its centred codes u changes it by −2 d (u·P) + d² uᵀ H u: the best scale given the codes in
closed form, taken only if it still helps after being rounded to its stored type. Nothing here can make a row worse.

Gradients are left-looking: one matrix product per block of columns, and inside the block only columns already moved are
added; all rows move together. The first sweep computes them from the residual, in float32. Later sweeps correct what
they were by the latest move of every column, a small change, for which a large linear may take bfloat16 (`steering`);
groups of several blocks are computed anew each time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whet.grids.integer import Params
from whet.grids.schemes import CodedGrid
from whet.quantize.solution import COLUMNS, Solution
from whet.quantize.steering import LARGE, steering_type

_BLOCK = 128
# A sweep that lowers the objective by less than this share is the last one: the next would gain about a third of it.
# In a linear of over `LARGE` weights that third has to be worth a sweep's time; in a smaller one it takes no time.
_ENOUGH, _ENOUGH_LARGE = 0.01, 0.045


def descend(
    w: Tensor, h: Tensor, grid: CodedGrid, solution: Solution, mask: Tensor | None = None, *, sweeps: int = 4
) -> list[float]:
    """Improve `solution` of `w [out, in]` in place; returns by how much each sweep lowered tr(R H Rᵀ).

    h: `[in, in]` float32, used undamped. mask: bool `[out, in]`, False where the weight stays exactly 0. sweeps: at
    most so many; one that gains less than 1 % of the objective (4.5 % in linears of over two
    million weights) is the last.
    """
    target = w.float().t().contiguous()
    codes = solution.codes.t().contiguous().float()
    params = {k: v.t().contiguous() for k, v in solution.params.items()}
    kept = None if mask is None else mask.t()
    residual = torch.empty_like(target)
    for index, (a, b) in enumerate(grid.groups(w.shape[1])):
        residual[a:b] = target[a:b] - grid.dequantize(codes[a:b], {k: v[index] for k, v in params.items()})
    gradients = torch.empty_like(target)  # each block's as it was when last visited, before it moved
    moves = torch.empty_like(target, dtype=steering_type(w))
    coarse = h.to(moves.dtype)
    gains: list[float] = []
    objective = target.new_zeros(())
    for _ in range(sweeps):
        gain = target.new_zeros(())
        for index, (a, b) in enumerate(grid.groups(w.shape[1])):
            own = {k: v[index] for k, v in params.items()}
            span = slice(a, b)
            before = residual[span].clone()
            for start in range(a, b, _BLOCK):
                block = slice(start, min(start + _BLOCK, b))
                if gains and b - a <= _BLOCK:
                    gradients[block] -= coarse[block] @ moves
                else:
                    torch.mm(h[block], residual, out=gradients[block])
                if not gains:
                    objective += torch.linalg.vecdot(gradients[block], residual[block]).sum()
                moved, saved = _move_codes(
                    gradients[block], h[block, block], grid, own, codes[block], None if kept is None else kept[block]
                )
                residual[block] -= moved
                gain += saved
            if b - a > _BLOCK:
                gradient = h[span] @ residual
            else:
                gradient = torch.addmm(gradients[span], h[span, span], moved, alpha=-1)
            better, saved = _move_params(gradient, h[span, span], grid, own, codes[span])
            if better:
                for k in params:
                    params[k][index] = own[k]
                residual[span] = target[span] - grid.dequantize(codes[span], own)
                gain += saved
            moves[span] = before.sub_(residual[span])
        gains.append(gain.item())
        if gains[-1] < (_ENOUGH_LARGE if w.numel() > LARGE else _ENOUGH) * objective.item():
            break
    solution.codes = codes.t().contiguous().to(torch.uint8)
    solution.params = {k: v.t().contiguous() for k, v in params.items()}
    return gains


def _move_codes(
    gradient: Tensor, h: Tensor, grid: CodedGrid, params: Params, codes: Tensor, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Move each of `size` columns to its best code in turn, changing `codes [size, out]` in place.

    gradient: R H of these columns before. Returns by how much each weight moved, and the loss that was saved in all.
    """
    levels = grid.bind(params)
    moved = levels.value(codes)  # the values as they are; each becomes what it moved by once its column was visited
    slopes = gradient.clone()
    weights = h.diagonal().tolist()
    for start in range(0, len(codes), COLUMNS):
        stop = min(start + COLUMNS, len(codes))
        if start:
            slopes[start:stop].addmm_(h[start:stop, :start], moved[:start], alpha=-1)
        for c in range(start, stop):
            value, p = moved[c], slopes[c]
            if weights[c] <= 0:
                value.zero_()
                continue
            if c > start:
                p.addmv_(moved[start:c].t(), h[start:c, c], alpha=-1)
            code = levels.codes(torch.add(value, p, alpha=1 / weights[c]))
            if kept is not None:
                code = torch.where(kept[c], code, codes[c])
            torch.sub(levels.value(code), value, out=value)
            codes[c] = code
    saved = torch.linalg.vecdot(slopes.mul_(2).sub_(moved * h.diagonal()[:, None]), moved)
    return moved, saved.sum()


def _move_params(gradient: Tensor, h: Tensor, grid: CodedGrid, params: Params, codes: Tensor) -> tuple[bool, Tensor]:
    """Refit scale (and real zero) `[out]` of one group given its codes, where that helps.

    Returns whether any row moved, and the loss that was saved in all.
    """
    scale = params["scale"].float()
    if grid.zero == "real":
        along = codes
        curve, slope = (along * (h @ along)).sum(0), (along * gradient).sum(0)
        flat, flat_slope = h.sum(), gradient.sum(0)
        cross = (along * h.sum(1, keepdim=True)).sum(0)
        det = curve * flat - cross * cross
        solvable = det > 1e-6 * curve * flat
        step = torch.where(solvable, (slope * flat - flat_slope * cross) / torch.where(solvable, det, 1.0), 0.0)
        new_scale = grid.stored(scale + step)
        step = new_scale.float() - scale
        offset = params["offset"].float()
        lift = (flat_slope - step * cross) / flat.clamp_min(torch.finfo(h.dtype).tiny)
        new_offset = grid.stored(offset + lift)
        lift = new_offset.float() - offset
        gain = 2 * (step * slope + lift * flat_slope) - step * step * curve
        gain = gain - 2 * step * lift * cross - lift * lift * flat
        better = (gain > 0) & torch.isfinite(new_scale) & torch.isfinite(new_offset)
        params["offset"] = torch.where(better, new_offset, params["offset"])
    else:
        along = grid.along(codes, params)
        curve, slope = (along * (h @ along)).sum(0), (along * gradient).sum(0)
        curves, slopes = grid.pool(curve), grid.pool(slope)
        step = torch.where(curves > 0, slopes / torch.where(curves > 0, curves, 1.0), 0.0)
        new_scale = grid.stored(scale + step)
        step = new_scale.float() - scale
        gain = step * (2 * slope - step * curve)
        better = (grid.pool(gain) > 0) & torch.isfinite(new_scale) & (new_scale != 0)
    params["scale"] = torch.where(better, new_scale, params["scale"])
    return bool(better.any()), torch.where(better, gain, 0.0).sum()
