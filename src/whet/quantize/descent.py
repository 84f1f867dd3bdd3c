"""Coordinate descent on a rounded linear: single codes, then scales and zeros, until no move helps.

On the full second moment H, with R = w − q the objective is tr(R H Rᵀ). Moving one weight by d changes its row's
objective by −2 d p + d² H_cc, p = (R H)_c, so the best code is the one nearest to q_c + p / H_cc: an exact step. Moving
a group's scale by d along its centred codes u changes it by −2 d (u·P) + d² uᵀ H u: the best scale given the codes in
closed form, taken only if it still helps after being rounded to its stored type. Nothing here can make a row worse.

Gradients are left-looking: one matrix product per block of columns, and inside the block only columns already moved are
added; the rows of a slice move together. The first sweep computes them from the residual, in float32. Later sweeps
correct what they were by the latest move of every column, a small change, for which a large linear may take bfloat16
(`steering_type`); groups of several blocks, and groups that share parameters with others, are computed anew each time.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from whet.grids import CodedGrid, Params
from whet.quantize.solution import COLUMNS, LARGE, Solution, row_slices, steering_type

_BLOCK = 128
# A sweep that lowers the objective by less than this share is the last one: the next would gain about a third of it.
# In a linear of over `LARGE` weights that third has to be worth a sweep's time; in a smaller one it takes no time.
_ENOUGH, _ENOUGH_LARGE = 0.01, 0.045


def descend(
    w: Tensor, h: Tensor, grid: CodedGrid, solution: Solution, mask: Tensor | None = None, *, sweeps: int = 4
) -> list[float]:
    """Improve `solution` of `w [out, in]` in place; returns by how much each sweep lowered tr(R H Rᵀ).

    h: `[in, in]` float32, used undamped. mask: bool `[out, in]`, False where the weight stays exactly 0. sweeps: at
    most so many of each slice of rows; one that gains less than 1 % of the objective (4.5 % in linears of over two
    million weights) is its last.
    """
    steering, large = steering_type(w), w.numel() > LARGE
    coarse = h.to(steering)
    parts: list[Solution] = []
    gained: list[list[float]] = []
    for rows in row_slices(w, grid.rows):
        parts.append(solution.rows(rows.start, rows.stop))
        own = None if mask is None else mask[rows]
        gained.append(_descend(w[rows], h, coarse, grid, parts[-1], own, sweeps, _ENOUGH_LARGE if large else _ENOUGH))
    whole = Solution.of_rows(parts) if len(parts) > 1 else parts[0]
    solution.codes, solution.params = whole.codes, whole.params
    return [sum(each) for each in itertools.zip_longest(*gained, fillvalue=0.0)]


def _descend(
    w: Tensor,
    h: Tensor,
    coarse: Tensor,
    grid: CodedGrid,
    solution: Solution,
    mask: Tensor | None,
    sweeps: int,
    enough: float,
) -> list[float]:
    """`descend` on some rows, until a sweep gains less than a share `enough`; coarse: `h` in the type that steers."""
    target = w.float().t().contiguous()
    codes = solution.codes.t().contiguous().float()
    params = {k: v.t().contiguous() for k, v in solution.params.items()}
    kept = None if mask is None else mask.t()
    residual = torch.empty_like(target)
    for index, (a, b) in enumerate(grid.groups(w.shape[1])):
        residual[a:b] = target[a:b] - grid.dequantize(codes[a:b], grid.group_params(params, index))
    blocks = grid.blocks(w.shape[1])
    gradients = torch.empty_like(target)  # each block's as it was when last visited, before it moved
    moves = torch.empty_like(target, dtype=coarse.dtype)
    gains: list[float] = []
    objective = target.new_zeros(())
    for _ in range(sweeps):
        gain = target.new_zeros(())
        for index, (a, b) in enumerate(grid.groups(w.shape[1])):
            own = grid.group_params(params, index)
            span = slice(a, b)
            before = residual[span].clone()
            for start in range(a, b, _BLOCK):
                block = slice(start, min(start + _BLOCK, b))
                if gains and b - a <= _BLOCK and not blocks:
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
            refitted = grid.refit(codes[span], gradient, h[span, span], own)
            if refitted is not None:
                new, saved = refitted
                for k, v in new.items():
                    params[k][index] = v
                residual[span] = target[span] - grid.dequantize(codes[span], own | new)
                gain += saved
            moves[span] = before.sub_(residual[span])
            if index in blocks:
                gain += _move_shared(h, grid, params, codes, target, residual, blocks[index])
        gains.append(gain.item())
        if gains[-1] < enough * objective.item():
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


def _move_shared(
    h: Tensor,
    grid: CodedGrid,
    params: Params,
    codes: Tensor,
    target: Tensor,
    residual: Tensor,
    block: tuple[int, int, int],
) -> Tensor | float:
    """Refit what the groups of a `block` (index, start, end) share, where that helps; returns the loss that was saved.

    Changes `params` and `residual [in, out]` in place.
    """
    index, start, end = block
    span = slice(start, end)
    refitted = grid.refit_shared(codes[span], h[span] @ residual, h[span, span], params, index)
    if refitted is None:
        return 0.0
    new, saved = refitted
    for k, v in new.items():
        params[k][index] = v
    for group, (a, b) in enumerate(grid.groups(len(codes))):
        if start <= a < end:
            residual[a:b] = target[a:b] - grid.dequantize(codes[a:b], grid.group_params(params, group))
    return saved
