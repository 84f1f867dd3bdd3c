"""FP4 whose scales in a row are its scale over powers of two: M2 of ZeroQuant-FP.

Wu, Yao and He 2023 (arXiv 2307.09782, section 3) bound the scales of groups so that weights in FP4 become FP8 by moving
exponents: M1 makes each scale a power of two (`small_floats`, scales of type E8M0), M2 only their ratios within a row.
They round scales up to what is allowed. Here a row's scale and the shifts of its groups are searched together, by what
the weights lose as stored.

With shifts of at most 14 a weight over its row's scale is a number of E4M3, once it is multiplied by 64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet.grids.books import BookLevels
from whet.grids.grid import Params
from whet.grids.grouped import CACHED
from whet.grids.least_squares import Quadratic, errors, sums, usable
from whet.grids.packing import pack_columns, unpack_columns
from whet.grids.small_floats import SmallFloatGrid, power

SHIFT_BITS = 4
_MOST = 14
# Scales of a row that are tried, over the one that puts its largest weight on the largest value: an octave of them,
# for a shift more or less is another octave. Nearest rounding loses 2 % more with four, 0.4 % less with sixteen.
_STEPS = 8
# Shifts tried beside the usual one of a group, which puts its largest weight on 3 to 6.
_NEAR = (0, -1, 1, -2)
_ROUNDS = 2


@dataclass(frozen=True)
class ShiftedGrid(SmallFloatGrid):
    """Where a linear's weights may land: `scale * 2^-shift * value`, scale `[out, 1]`, shift uint8 `[out, groups]`."""

    def nbytes(self, rows: int, columns: int) -> int:
        """Exact bytes of codes, scales and shifts of a `[rows, columns]` matrix as `stored_parts` has them."""
        shifts = 4 * math.ceil(rows * SHIFT_BITS / 32) * len(self.groups(columns))
        return rows * (math.ceil(columns / 2) + self.scale_dtype.itemsize) + shifts

    def blocks(self, columns: int) -> dict[int, tuple[int, int, int]]:
        """Columns that share a scale, by their last group: the whole row."""
        return {len(self.groups(columns)) - 1: (0, 0, columns)}

    def table_entry(self, decode: str) -> dict[str, Any]:
        """How a linear on it is read."""
        return {**super().table_entry(decode), "shift_bits": SHIFT_BITS}

    def stored_parts(self, codes: Tensor, params: Params) -> dict[str, Tensor]:
        """The tensors of one linear, the shifts packed along rows."""
        return {**super().stored_parts(codes, params), "weight_parts": pack_columns(params["shift"], SHIFT_BITS)}

    def read_parts(self, parts: dict[str, Tensor]) -> tuple[Tensor, Params]:
        """Codes and parameters of one linear from its stored tensors."""
        codes, params = super().read_parts(parts)
        return codes, params | {"shift": unpack_columns(parts["weight_parts"], SHIFT_BITS, len(codes))}

    # -- values ---------------------------------------------------------------------------------------------------

    def group_params(self, params: Params, index: int) -> Params:
        """Those of group `index`, of `params` that have groups along their first dimension, or a row's alone."""
        return {k: v[index if k == "shift" else 0] for k, v in params.items()}

    def bind(self, params: Params) -> BookLevels:
        """The grid's levels under `params`, float32."""
        return BookLevels.of(self.book(params["scale"].device), _scale(params))

    def dequantize(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of `codes`, computed in float32, where they are exact, whatever `dtype` they are wanted in."""
        return (self.book(codes.device).value(codes) * _scale(params)).to(dtype)

    # -- choosing parameters --------------------------------------------------------------------------------------

    def fit(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """Scales and shifts that bring nearest rounding of `w [out, in]` closest, in importance-weighted squares.

        importance: `[in]` or `[out, in]`, non-negative; None weighs all columns alike. Returns `scale [out, 1]` as
        stored and `shift [out, groups]`.
        """
        weight = torch.ones_like(w) if importance is None else importance.expand(w.shape)
        columns = w.shape[1]
        count = len(self.groups(columns))
        missing = count * self.group - columns
        size = max(1, CACHED // columns)
        found = []
        for start in range(0, len(w), size):
            rows = slice(start, start + size)
            own = usable(weight[rows].float().t()).t()
            x, own = (
                torch.nn.functional.pad(t, (0, missing)).reshape(-1, self.group).t().contiguous()
                for t in (w[rows].float(), own)
            )
            found.append(self._fit_rows(x, own, count))
        return {k: torch.cat([one[k] for one in found]) for k in found[0]}

    def shared(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """What the groups of a row share, `scale [out, 1]`: it is chosen before their shifts are."""
        return {"scale": self.fit(w, importance)["scale"]}

    def candidates(self, w: Tensor, importance: Tensor | None, keep: int, shared: Params | None = None) -> Params:
        """The `keep` best shifts of each row of `w [n, group]` beside its scale, best first.

        importance: `[group]`, `[n, group]` or None. shared: as of this group, `scale [n]`. Returns `[keep, n]`, the
        scale among it; of fewer shifts if there are not so many.
        """
        assert shared is not None
        x = w.float().t()
        weight = x.new_ones(()) if importance is None else importance.float()
        shifts, losses = self._tried(x, usable(weight.expand(w.shape).t()), shared["scale"].float())
        losses, order = losses.sort(dim=0, stable=True)
        shifts = shifts.gather(0, order)
        losses[1:].masked_fill_(shifts[1:] == shifts[:-1], torch.inf)  # one of those that are equal is enough
        order = losses.topk(min(keep, len(losses)), dim=0, largest=False, sorted=True).indices
        return {"scale": shared["scale"].expand(order.shape), "shift": shifts.gather(0, order).to(torch.uint8)}

    def refit(self, codes: Tensor, gradient: Tensor, h: Tensor, params: Params) -> tuple[Params, Tensor] | None:
        """The best shift `[out]` of one group for its `codes [group, out]`, and by how much it lowers the loss.

        h: second moment of the group's inputs. gradient: h's product with what rounding leaves, all columns counted.
        None where no row gains.
        """
        levels = self.bind(params)
        told = Quadratic.of_moments(levels.along(codes.clone()), None, gradient, h)
        whole = params["scale"].float()
        ratio = (levels.scale + told.step()) / torch.where(whole != 0, whole, torch.inf)
        near = -ratio.clamp(2.0 ** -(_MOST + 1), 1.0).log2()
        shifts = torch.stack([near.floor(), near.ceil()]).clamp_(0, _MOST)
        steps = whole * power(-shifts.int()) - levels.scale
        gain, best = told.gain(steps, torch.zeros_like(steps)).max(0, keepdim=True)
        better = gain[0] > 0
        if not better.any():
            return None
        shift = torch.where(better, shifts.gather(0, best)[0].to(torch.uint8), params["shift"])
        return {"shift": shift}, gain[0].clamp_min(0).sum()

    def refit_shared(
        self, codes: Tensor, gradient: Tensor, h: Tensor, params: Params, index: int
    ) -> tuple[Params, Tensor] | None:
        """The best scale `[out]` of each row for its `codes [in, out]` and shifts, and what it saves.

        params: of all groups and rows, along their first dimension. h, gradient: as for `refit`, of the whole row.
        """
        spread = torch.cat([params["shift"][i].expand(b - a, -1) for i, (a, b) in enumerate(self.groups(len(codes)))])
        scale = params["scale"][index]
        values = self.book(codes.device).value(codes) * power(-spread.int())
        told = Quadratic.of_moments(values, None, gradient, h)
        new = self.stored(scale.float() + told.step())
        step = new.float() - scale.float()
        gain = told.gain(step, torch.zeros_like(step))
        better = (gain > 0) & torch.isfinite(new) & (new != 0)
        if not better.any():
            return None
        return {"scale": torch.where(better, new, scale)}, torch.where(better, gain, 0.0).sum()

    # -- the search's parts, on weights `x [group, n]` of importance `[group, n]`, groups of a row one after another ---

    def _fit_rows(self, x: Tensor, weight: Tensor, count: int) -> Params:
        """The best of rows of `count` groups: `scale [rows, 1]` and `shift [rows, count]`."""
        peak = x.abs().amax(0).view(-1, count).amax(1)
        # in units near the largest weight: squares of very small ones would all be 0
        unit = power(peak.frexp().exponent)
        x = x / unit.repeat_interleave(count)
        usual = peak / unit / self.book().top
        best, shifts, least = self._best(x, weight, self._stored_in(usual, unit), count)
        for step in range(1 - _STEPS // 2, _STEPS // 2 + 1):
            if step:
                scale = self._stored_in(usual * 2 ** (step / _STEPS), unit)
                best, shifts, least = self._better(best, shifts, least, scale, x, weight, count)
        for _ in range(_ROUNDS):
            spread = (best[:, None] * power(-shifts.int())).flatten()
            told = sums(BookLevels.of(self.book(x.device), spread[None]), x, weight)
            part = power(-shifts.int())
            slope, curve = (t[0].view(-1, count) for t in (told.slope, told.curve))
            solved = Quadratic.of_one((slope * part).sum(1), (curve * part * part).sum(1)).step()
            scale = self._stored_in(torch.where(solved > 0, solved, best), unit)
            best, shifts, least = self._better(best, shifts, least, scale, x, weight, count)
        # an octave more, and shifts with it, is the same but for the room that a group has while errors are fed forward
        scale = best * unit
        room = (shifts.amax(1) < _MOST) & torch.isfinite(self.stored(2 * scale))
        return {
            "scale": self.stored(torch.where(room, 2 * scale, scale))[:, None],
            "shift": (shifts + room[:, None]).to(torch.uint8),
        }

    def _best(self, x: Tensor, weight: Tensor, scale: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """`scale [rows]`, its best shifts `[rows, count]` and what rows lose with them."""
        shifts, losses = self._tried(x, weight, scale.repeat_interleave(count))
        least, pick = losses.min(0, keepdim=True)
        return scale, shifts.gather(0, pick)[0].view(-1, count), least[0].view(-1, count).sum(1)

    def _better(
        self, best: Tensor, shifts: Tensor, least: Tensor, scale: Tensor, x: Tensor, weight: Tensor, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The better for each row of what there is and the best beside `scale`."""
        _, others, losses = self._best(x, weight, scale, count)
        better = losses < least
        return (
            torch.where(better, scale, best),
            torch.where(better[:, None], others, shifts),
            torch.minimum(losses, least),
        )

    def _tried(self, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Shifts `[tried, n]` (int32) near the usual one beside `scale [n]`, and what each loses."""
        peak = x.abs().amax(0)
        usual = peak / self.book().top
        near = scale.frexp().exponent - usual.frexp().exponent
        near = torch.where(peak > 0, near, _MOST)
        shifts = (near + torch.tensor(_NEAR, dtype=torch.int32, device=x.device)[:, None]).clamp_(0, _MOST)
        levels = BookLevels.of(self.book(x.device), scale * power(-shifts))
        return shifts, errors(levels, x, weight).nan_to_num(torch.inf)

    def _stored_in(self, scale: Tensor, unit: Tensor) -> Tensor:
        """Scales in `unit`s as they will be stored."""
        return self.stored(scale * unit).float() / unit


def _scale(params: Params) -> Tensor:
    """What values are multiplied by; exact in float32."""
    return params["scale"].float() * power(-params["shift"].int())
