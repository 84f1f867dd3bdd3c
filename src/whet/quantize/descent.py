"""Coordinate descent on a rounded linear: single codes, then scales and zeros, until no move helps.

On the full second moment H, with R = w − q the objective is tr(R H Rᵀ). Moving one weight by d changes its row's
objective by −2 d p + d² H_cc, p = (R H)_c, so the best code is the one nearest to q_c + p / H_cc: an exact step. Moving a
group's scale by d along its centred codes u changes it by −2 d (u·P) + d² uᵀ H u: the best scale given the codes in
closed form, taken only if it still helps after being rounded to its stored type. Nothing here can make a row worse.

Gradients are left-looking (one matrix product per group, then inside the group only columns already moved are added),
so a sweep costs what GPTQ costs and all rows move together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whet.grids.integer import IntegerGrid, Params
from whet.quantize.solution import Solution

_BLOCK = 128
# A sweep that lowers the objective by less than this share is the last one.
_ENOUGH = 1e-3


def descend(
    w: Tensor, h: Tensor, grid: IntegerGrid, solution: Solution, mask: Tensor | None = None, *, sweeps: int = 4
) -> list[float]:
    """Improve `solution` of `w [out, in]` in place; returns tr(R H Rᵀ) before and after each sweep.

    h: `[in, in]` float32, used undamped. mask: bool `[out, in]`, False where the weight stays exactly 0.
    """
    target = w.float().t().contiguous()
    codes = solution.codes.t().float()
    params = {k: v.t().contiguous() for k, v in solution.params.items()}
    groups = grid.groups(w.shape[1])
    kept = None if mask is None else mask.t()
    residual = target - grid.decode(solution.codes, solution.params).t()
    history = [((h @ residual) * residual).sum().item()]
    for _ in range(sweeps):
        for index, (a, b) in enumerate(groups):
            own = {k: v[index] for k, v in params.items()}
            for start in range(a, b, _BLOCK):
                block = slice(start, min(start + _BLOCK, b))
                gradient = h[block] @ residual
                _move_codes(gradient, h[block, block], grid, own, codes[block], residual[block], kept, start)
            span = slice(a, b)
            gradient = h[span] @ residual
            if _move_params(gradient, h[span, span], grid, own, codes[span]):
                for k in params:
                    params[k][index] = own[k]
                residual[span] = target[span] - grid.dequantize(codes[span], own)
        history.append(((h @ residual) * residual).sum().item())
        if history[-1] > history[-2] * (1 - _ENOUGH):
            break
    solution.codes = codes.t().contiguous().to(torch.uint8)
    solution.params = {k: v.t().contiguous() for k, v in params.items()}
    return history


def _move_codes(
    gradient: Tensor,
    h: Tensor,
    grid: IntegerGrid,
    params: Params,
    codes: Tensor,
    residual: Tensor,
    kept: Tensor | None,
    start: int,
) -> None:
    """Move each of `size` columns to its best code in turn; `codes` and `residual [size, out]` change in place."""
    size, rows = codes.shape
    moved = gradient.new_zeros(size, rows)
    for c in range(size):
        weight = h[c, c].item()
        if weight <= 0:
            continue
        p = gradient[c].clone()
        if c:
            p.addmv_(moved[:c].t(), h[:c, c], alpha=-1)
        value = grid.dequantize(codes[c], params)
        code = grid.quantize(torch.add(value, p, alpha=1 / weight), params)
        step = grid.dequantize(code, params) - value
        better = step * (2 * p - step * weight) > 0
        if kept is not None:
            better &= kept[start + c]
        codes[c] = torch.where(better, code, codes[c])
        moved[c] = torch.where(better, step, 0.0)
    residual -= moved


def _move_params(gradient: Tensor, h: Tensor, grid: IntegerGrid, params: Params, codes: Tensor) -> bool:
    """Refit scale (and real zero) `[out]` of one group given its codes, where that helps; True if any row moved."""
    scale = params["scale"].float()
    stored = params["scale"].dtype
    if grid.zero == "real":
        along = codes
        curve, slope = (along * (h @ along)).sum(0), (along * gradient).sum(0)
        flat, flat_slope = h.sum(), gradient.sum(0)
        cross = (along * h.sum(1, keepdim=True)).sum(0)
        det = curve * flat - cross * cross
        solvable = det > 1e-6 * curve * flat
        step = torch.where(solvable, (slope * flat - flat_slope * cross) / torch.where(solvable, det, 1.0), 0.0)
        new_scale = (scale + step).to(stored)
        step = new_scale.float() - scale
        offset = params["offset"].float()
        lift = (flat_slope - step * cross) / flat.clamp_min(torch.finfo(h.dtype).tiny)
        new_offset = (offset + lift).to(stored)
        lift = new_offset.float() - offset
        gain = 2 * (step * slope + lift * flat_slope) - step * step * curve
        gain = gain - 2 * step * lift * cross - lift * lift * flat
        better = (gain > 0) & torch.isfinite(new_scale) & torch.isfinite(new_offset)
        params["offset"] = torch.where(better, new_offset, params["offset"])
    else:
        along = codes - (params["zero"].float() if grid.zero == "int" else grid.half)
        curve, slope = (along * (h @ along)).sum(0), (along * gradient).sum(0)
        step = torch.where(curve > 0, slope / torch.where(curve > 0, curve, 1.0), 0.0)
        new_scale = (scale + step).to(stored)
        step = new_scale.float() - scale
        better = (step * (2 * slope - step * curve) > 0) & torch.isfinite(new_scale) & (new_scale != 0)
    params["scale"] = torch.where(better, new_scale, params["scale"])
    return bool(better.any())
