"""AWQ: columns whose inputs are large get finer steps, by factors that are searched for (Lin et al. 2023, 2306.00978).

Factors are s_j = x_j^a, x_j the root mean square of channel j, or x_j^a / w_j^(1−a), w_j the mean size of its weights
relative to the largest of their group; a is one of 0, 1/20, …, 19/20, and a = 0 without weights is no factor at all.
All are judged by the quadratic loss of rounding to nearest on the linears' own grids (`Reader.loss`): first every
fourth a, then the others around the best. What wins on some rows is kept if it also wins on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whet.quantize.readers import Found, Reader, Settle, balanced, loss

STEPS = 20
_COARSE = 4
# Rows that candidates are judged on: a search of all rows would cost more than GPTQ of a small model.
_ROWS = 128


def awq(readers: Sequence[Reader], settle: Settle = balanced) -> Found:
    """The best factors for `readers` of one input; all ones where none are better.

    settle: makes the nearest factors of it that can be folded in exactly.
    """
    some = [reader.sampled(_ROWS) for reader in readers]
    inputs = sum((reader.share * reader.h.diagonal() for reader in readers), torch.zeros(()))
    size = inputs.clamp_min(0).sqrt()
    size = size.clamp_min(1e-4 * size.max().clamp_min(torch.finfo(torch.float32).tiny))
    weights = torch.cat([_relative(reader) for reader in some]).mean(0).clamp_min(1e-4)
    ones = torch.ones_like(size)
    best = loss(some)
    factors = ones
    for weighed in (False, True):
        at = 0
        losses = {} if weighed else {0: loss(some)}
        for step in (_COARSE, _COARSE // 2, 1):
            around = range(0, STEPS, _COARSE) if step == _COARSE else (at - step, at + step)
            for k in around:
                if 0 <= k < STEPS and k not in losses:
                    power = size ** (k / STEPS)
                    candidate = settle(balanced(power / weights ** (1 - k / STEPS) if weighed else power))
                    losses[k] = loss(some, candidate)
                    if losses[k] < best:
                        best, factors = losses[k], candidate
            at = min(losses, key=losses.__getitem__)
    if not (factors != 1).any():
        return Found(ones, 1.0)
    before, after = loss(readers), loss(readers, factors)
    return Found(factors, after / before) if after < before else Found(ones, 1.0)


def _relative(reader: Reader) -> Tensor:
    """Sizes of weights `[out, in]` relative to the largest of their group."""
    found = reader.w.abs()
    for start, end in reader.grid.groups(found.shape[1]):
        found[:, start:end] /= found[:, start:end].amax(1, keepdim=True).clamp_min(1e-12)
    return found
