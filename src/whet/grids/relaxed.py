"""A rounded linear that gradients reach: what training of codes and scales works on, whatever the grid.

The grid is only asked for values and codes: a weight's place is measured in gaps between the value it started on and
the nearer of its neighbours, which for evenly spaced levels are the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whet.grids.levels import Levels

if TYPE_CHECKING:
    from whet.grids.grid import CodedGrid, Params

# How far from its value a weight starts at most, in gaps: at half a gap rounding would move it.
_NEAR = 0.49
_TRAINED = ("scale", "offset")


class Relaxed:
    """`grid.relax(codes, params, pull)`: at first it is `grid.decode(codes, params)`.

    Everything is `[out, groups, size]`, the last group of a ragged row filled up, parameters `[out, groups, 1]`.
    `place` says how many gaps a weight is away from the value it started on. `factors` are what scales and real zeros
    are multiplied by, where a row has them for itself; whole numbers stay, and so does a divisor.
    """

    def __init__(self, grid: CodedGrid, codes: Tensor, params: Params, pull: Tensor) -> None:
        self.grid, self.params = grid, params
        self.columns = codes.shape[1]
        spans = grid.groups(self.columns)
        self.count, self.size = len(spans), spans[0][1] - spans[0][0]
        self.start = self._bind(params)
        grouped = self._grouped(codes.float())
        self.value = self.start.value(grouped)
        self.low, self.high = self.start.ends()
        self.gap = self.start.gaps(grouped, self.value)
        wanted = self._grouped(pull) / torch.where(self.gap > 0, self.gap, torch.inf)
        self.place = wanted.clamp_(-_NEAR, _NEAR).requires_grad_()
        # what rows share would have to move with all of them, some of which may be in other linears
        tuned = {k: v for k, v in params.items() if k in _TRAINED and grid.rows == 1}
        self.factors = {k: torch.ones_like(v, dtype=torch.float32).requires_grad_() for k, v in tuned.items()}
        self.stay()

    def weight(self) -> Tensor:
        """The rounded weights `[out, in]`, float32; gradients reach places and factors as if nothing were rounded."""
        wanted = torch.addcmul(self.value, self.place, self.gap)
        with torch.no_grad():
            away = self.start.value(self.start.codes(wanted)).sub_(wanted)
        now = self._bind(self._scaled(self.factors))
        return self.start.moved(wanted + away, now).flatten(1)[:, : self.columns]

    def stay(self) -> None:
        """Keep places within what the codes reach."""
        with torch.no_grad():
            room = _NEAR * self.gap
            wanted = torch.addcmul(self.value, self.place, self.gap)
            wanted = torch.minimum(torch.maximum(wanted, self.low - room), self.high + room)
            self.place.copy_(torch.where(self.gap > 0, (wanted - self.value) / self.gap, 0.0))

    def rounded(self) -> tuple[Tensor, Params]:
        """Codes `uint8 [out, in]` and parameters as they would be stored now."""
        with torch.no_grad():
            codes = self.start.codes(torch.addcmul(self.value, self.place, self.gap)).flatten(1)[:, : self.columns]
            kept = {k: self.grid.stored(self.params[k].float() * f) for k, f in self.factors.items()}
        return codes.to(torch.uint8), {**self.params, **kept}

    def _scaled(self, factors: Mapping[str, Tensor]) -> Params:
        """The parameters times their factors, rounded to their stored type straight through."""
        found = dict(self.params)
        for k, factor in factors.items():
            exact = self.params[k].float() * factor
            with torch.no_grad():
                away = self.grid.stored(exact).float() - exact
            found[k] = exact + away
        return found

    def _bind(self, params: Params) -> Levels:
        return self.grid.bind({k: v[..., None] for k, v in self.grid.spread(params, self.count).items()})

    def _grouped(self, x: Tensor) -> Tensor:
        """`x [out, in]` as `[out, groups, size]`."""
        missing = self.count * self.size - self.columns
        return torch.nn.functional.pad(x, (0, missing)).unflatten(1, (self.count, self.size))
