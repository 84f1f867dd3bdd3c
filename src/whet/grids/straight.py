"""Rounding that gradients go through: the two passes of quantization-aware training, whatever the grid.

Forward a weight is the value of its nearest code, by the grid's own `decode`. Backward, within the reach of the codes,
rounding is taken for the identity (straight through: Bengio et al. 2013, arXiv 1308.3432), and beyond it weights get no
gradient. What becomes of scales:

- `coupled`: a weight is counted in scales, so that it moves with its scale, which gets Σ g · value / scale, and a real
  zero Σ g. Codes change where weights move, not where scales do (EfficientQAT's second phase, Chen et al. 2024, arXiv
  2407.11062, at the same time as the first);
- otherwise as LSQ has it (Esser et al. 2020, arXiv 1902.08153): the scale gets Σ g · (value − weight) / scale within
  reach and Σ g · value / scale beyond, a real zero Σ g of what lies beyond (LSQ+, Bhalgat et al. 2020, arXiv
  2004.09576).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whet.grids.levels import Levels, inverse

_ROOM = 0.5  # how far beyond the outermost levels weights still get gradients, in gaps


class Straight(torch.autograd.Function):
    """`Straight.apply(latent, scale, offset, unit, size, start, now, coupled, decode)`: a rounded matrix `[out, in]`.

    latent `[out, in]`: what is trained, in `unit`s `[out, groups, 1]` of the levels `start`. scale, offset
    `[out, groups, 1]`: of the levels `now`, which gradients reach. size: of a group. decode: of codes
    `[out, groups, size]`, as floats, the matrix.
    """

    @staticmethod
    def forward(
        ctx: Any,
        latent: Tensor,
        scale: Tensor,
        offset: Tensor,
        unit: Tensor,
        size: int,
        start: Levels,
        now: Levels,
        coupled: bool,
        decode: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The values of the codes nearest to the weights."""
        levels = start if coupled else now
        made = decode(levels.codes(grouped(latent, size) * unit))
        ctx.start, ctx.levels, ctx.size, ctx.coupled = start, levels, size, coupled
        ctx.save_for_backward(latent, scale, offset, unit, made)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of latent, scale and offset."""
        latent, scale, offset, unit, made = ctx.saved_tensors
        g, w, value = (grouped(x, ctx.size) for x in (gradients[0], latent, made))
        w = w * unit
        low, high = ctx.levels.ends()
        inside = (w >= low - _ROOM * unit) & (w <= high + _ROOM * unit)
        base = offset if ctx.levels.real else 0.0
        moved = unit * (scale * ctx.start.inverse) if ctx.coupled else unit
        away = value - base if ctx.coupled else torch.where(inside, value - w, value - base)
        shift = g if ctx.coupled else g * ~inside
        return (
            (g * inside * moved).flatten(1)[:, : latent.shape[1]] if ctx.needs_input_grad[0] else None,
            (g * away).sum(-1, keepdim=True) * inverse(scale),
            shift.sum(-1, keepdim=True) if ctx.levels.real else None,
            *[None] * 6,
        )


def grouped(x: Tensor, size: int) -> Tensor:
    """`x [out, in]` as `[out, groups, size]`, the last group of a ragged row filled up with zeros."""
    missing = -x.shape[1] % size
    return torch.nn.functional.pad(x, (0, missing)).unflatten(1, (-1, size))
