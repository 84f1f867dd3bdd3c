"""What rounding a linear really costs over what its pivots tell, learnt from two grids solved on a few rows.

Three things go into it. Descent lowers what GPTQ pays. The solver sees H of the text it solves on, and its errors lie
where that text has little: on other text they cost more, the more so the fewer tokens there are. And gradients depend
on inputs: on the embedded model a down projection's errors cost half to all of what independence says, those of an up
projection up to one and a half times as much. Rows are solved without some positions (`Seen`); what their errors do
there, by the gradients there, tells the second and the third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.grids import parse_scheme
from whet.quantize.gptq import gptq
from whet.quantize.nearest import nearest
from whet.scores.prediction import Rows

_SOLVED = 64  # rows of a linear that are solved
LEARNT = (parse_scheme("int2s-g64"), parse_scheme("int4s-g64"))
_MOST = 4.0  # gradients that depend on inputs by more than so many times are a few tokens' chance


@dataclass(frozen=True)
class Seen:
    """Positions that were kept apart from a second moment.

    x: `[n, in]`, inputs. gradients: one a linear that reads them, `[n, out]`. moment: `[in, in]`, the mean of x xᵀ over
    the other positions, of which there are `tokens`. solving: tokens that the run will solve on.
    """

    x: Tensor
    gradients: Sequence[Tensor]
    moment: Tensor
    tokens: int
    solving: int


def gains(
    weights: Sequence[Tensor], h: Tensor, d: Tensor, slopes: Sequence[Tensor], seen: Seen | None = None
) -> list[dict[int, float]]:
    """For each linear `[out, in]` that reads one input: by bits (2 to 8), what is paid over what pivots tell.

    h: second moment `[in, in]`, d: its pivots, slopes: mean squared gradients `[out]`, as for `linear_losses`. Without
    `seen` only descent's part. Between and beyond the two grids that are solved (LEARNT) the ratio goes by bits.

    The excess on positions that were not solved on falls as one over the number of tokens, so the excess that is seen
    is scaled from the tokens that were solved on here to those of the run.
    """
    rows = [Rows.stand_for(s * (w.square() @ d), _SOLVED) for w, s in zip(weights, slopes, strict=True)]
    part = torch.cat([w[own.index] for w, own in zip(weights, rows, strict=True)])
    metric = h if seen is None else seen.moment
    known: list[dict[int, float]] = [{} for _ in weights]
    for grid in LEARNT:
        solution = gptq(part, metric, grid)
        error = part - grid.decode(solution.codes, solution.params)
        inside = ((error @ metric) * error).sum(1)
        there = None if seen is None else (seen.x.float() @ error.t()).square_()
        solution = nearest(part, d, grid)
        told = (part - grid.decode(solution.codes, solution.params)).square_() @ d
        start = 0
        for i, own in enumerate(rows):
            span = slice(start, start + len(own.index))
            start = span.stop
            weight = slopes[i][own.index] * own.weight
            solved, reckoned = float(inside[span] @ weight), float(told[span] @ weight)
            factor = 1.0
            if seen is not None and there is not None:
                lost, squares = there[:, span], seen.gradients[i][:, own.index].float().square()
                excess = _ratio(float(lost.mean(0) @ weight), solved) - 1
                factor += max(0.0, excess) * min(1.0, seen.tokens / max(1, seen.solving))
                apart = float((lost.mean(0) * squares.mean(0)) @ own.weight)
                factor *= min(_MOST, max(1 / _MOST, _ratio(float((lost * squares).mean(0) @ own.weight), apart)))
            known[i][grid.bits] = factor * _ratio(solved, reckoned)
    return [by_bits(mine) for mine in known]


def by_bits(known: dict[int, float]) -> dict[int, float]:
    """Figures at the bits of LEARNT, for 2 to 8 bits: between by line, beyond as at the nearest."""
    (low, first), (high, last) = known.items()
    return {bits: first + (last - first) * min(1.0, max(0.0, (bits - low) / (high - low))) for bits in range(2, 9)}


def _ratio(value: float, base: float) -> float:
    return value / base if base > 0 else 1.0
