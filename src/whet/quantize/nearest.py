"""Round to nearest, on parameters fitted by importance-weighted least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from whet.grids import Grid
from whet.quantize.solution import Solution, masked_codes


def nearest(w: Tensor, h: Tensor | None, grid: Grid, mask: Tensor | None = None) -> Solution:
    """Round `w [out, in]` to the nearest codes of `grid`.

    h: second moment `[in, in]`, its diagonal `[in]`, importances `[out, in]`, or None (all weights alike). Only the
    diagonal is used, to weigh the fit of the scales. mask: bool `[out, in]`, False where the weight must be exactly 0.
    """
    importance = h.diagonal() if h is not None and h.shape == (w.shape[1], w.shape[1]) else h
    w = w.float()
    if mask is None:
        params = grid.fit(w, importance)
        return Solution(grid.encode(w, params), params)
    w = torch.where(mask, w, 0.0)  # and not times it, which leaves zeros with a sign
    coded = grid.coded
    if coded is None:
        return Solution(grid.encode(w, {}), {})
    weight = mask.to(w.dtype) if importance is None else importance * mask
    params = grid.fit(w, weight)
    codes = grid.encode(w, params)
    turned = {k: v.t() for k, v in params.items()}
    for group, (a, b) in enumerate(grid.groups(w.shape[1])):
        part = {k: v[:, None] for k, v in coded.group_params(turned, group).items()}
        codes[:, a:b] = masked_codes(codes[:, a:b], part, coded, mask[:, a:b])
    return Solution(codes, params)
