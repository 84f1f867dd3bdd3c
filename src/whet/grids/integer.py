"""Integer grids of 2 to 8 bits: symmetric with a signed scale, with an integer zero, with a real zero.

The value of a code `c` in a group with scale `s` is

- `none`  (symmetric):    `s * (c - 2^(b-1))`; `s` may be negative, so that whichever end of the group is farther from
  zero lies exactly on the code that has no mirror image (llama.cpp's Q4_0 and Q3_K do the same);
- `int`   (integer zero): `s * (c - z)`, `z` an integer code, so that zero is always a value of the grid;
- `real`  (real zero):    `s * c + m`, `m` stored like the scale.

Codes are unsigned, `0 <= c < 2^b`. Scales are rounded to the type they are stored in *before* codes are chosen, so what
a solver sees is what a file holds. Groups run along a row; the last one may be shorter.

Everything is elementwise or a sum over a group: no loop over rows or groups, only over a few dozen candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from whet.errors import UsageError

Params = dict[str, Tensor]
Zero = Literal["none", "int", "real"]

# Shrink factors of the range tried by `fit`. Fewer bits want a smaller range and a finer search: at 2 bits the best
# symmetric range of Gaussian groups of 128 is about half the largest weight.
_SHRINK = {2: (0.35, 1.1, 26), 3: (0.5, 1.08, 20), 4: (0.62, 1.06, 12), 5: (0.74, 1.04, 10)}
_SHRINK_WIDE = (0.86, 1.02, 8)
# Weights fitted at once: a candidate's half dozen intermediate tensors then stay in the second-level cache.
_CACHED = 1 << 16
_FP16_NORMAL = (2.0**-14, 65504.0)


@dataclass(frozen=True)
class Levels:
    """A grid with its parameters multiplied out, so that rounding is two fused operations and a clamp.

    Only for choosing codes: `value` may differ from the grid's `dequantize` in the last bit of a float32.
    """

    inverse: Tensor
    shift: Tensor
    scale: Tensor
    offset: Tensor
    top: int

    def codes(self, x: Tensor) -> Tensor:
        """Nearest codes of `x`, as floats."""
        return torch.addcmul(self.shift, x, self.inverse).round_().clamp_(0, self.top)

    def value(self, codes: Tensor) -> Tensor:
        """What `codes` stand for."""
        return torch.addcmul(self.offset, codes, self.scale)


@dataclass(frozen=True)
class IntegerGrid:
    """Where a linear's weights may land.

    bits: 2 to 8. group: weights along a row that share a scale; 0 means the whole row (per channel).
    zero: `none`, `int` or `real`. scale_dtype: stored type of scales and real zeros; grids that differ in nothing else
    are one scheme.
    """

    bits: int
    group: int
    zero: Zero = "int"
    scale_dtype: torch.dtype = field(default=torch.float16, compare=False)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise UsageError(f"An integer grid of {self.bits} bits does not exist. Choose 2 to 8 bits.")
        if self.group < 0:
            raise UsageError(f"Group size {self.group} is negative. Choose 0 (per channel) or a positive size.")

    @property
    def name(self) -> str:
        """The scheme a user would type for it, e.g. `int4-g32`."""
        kind = {"none": "s", "int": "", "real": "z"}[self.zero]
        return f"int{self.bits}{kind}" + (f"-g{self.group}" if self.group else "")

    @property
    def top(self) -> int:
        """Largest code."""
        return 2**self.bits - 1

    @property
    def half(self) -> int:
        """Code of zero in the symmetric grid."""
        return 2 ** (self.bits - 1)

    def groups(self, columns: int) -> list[tuple[int, int]]:
        """Start and end column of every group of a row of `columns` weights."""
        size = self.group or columns
        return [(start, min(start + size, columns)) for start in range(0, columns, size)]

    def nbytes(self, rows: int, columns: int) -> int:
        """Exact bytes of codes and parameters of a `[rows, columns]` matrix as `formats.packing` stores them.

        Codes are a dense bit stream per row, padded to 32 bits; integer zeros are packed the same way along rows.
        """
        count = len(self.groups(columns))
        code_bytes = 4 * math.ceil(columns * self.bits / 32) * rows
        scale_bytes = rows * count * self.scale_dtype.itemsize
        zero_bytes = {
            "none": 0,
            "int": 4 * math.ceil(rows * self.bits / 32) * count,
            "real": scale_bytes,
        }[self.zero]
        return code_bytes + scale_bytes + zero_bytes

    # -- values ---------------------------------------------------------------------------------------------------

    def bind(self, params: Params) -> Levels:
        """The grid's levels under `params`, float32, ready to round many tensors that `params` broadcast against."""
        scale = params["scale"].float()
        usable = scale.abs() >= torch.finfo(torch.float32).tiny
        inverse = torch.where(usable, 1 / torch.where(usable, scale, 1.0), 0.0)
        if self.zero == "real":
            offset = params["offset"].float()
            return Levels(inverse, -offset * inverse, scale, offset, self.top)
        zero = params["zero"].float() if self.zero == "int" else torch.full_like(scale, self.half)
        return Levels(inverse, zero, scale, -zero * scale, self.top)

    def quantize(self, x: Tensor, params: Params) -> Tensor:
        """Nearest codes (as floats) of `x`; `params` broadcast against `x`. NaN never comes out of finite input."""
        return self.bind(params).codes(x.float())

    def dequantize(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of `codes`, in the type the target computes in: parameters are converted first, then multiplied."""
        scale = params["scale"].to(dtype)
        codes = codes.to(dtype)
        if self.zero == "real":
            return codes * scale + params["offset"].to(dtype)
        return (codes - (params["zero"].to(dtype) if self.zero == "int" else self.half)) * scale

    def zero_value(self, params: Params) -> Tensor | None:
        """The code whose value is exactly 0 (broadcastable like `params`), or None where the grid has none."""
        if self.zero == "real":
            return None
        if self.zero == "int":
            return params["zero"].float()
        return torch.full_like(params["scale"], self.half, dtype=torch.float32)

    # -- whole matrices -------------------------------------------------------------------------------------------

    def encode(self, w: Tensor, params: Params) -> Tensor:
        """Nearest codes, uint8, of `w [out, in]` given `params` of shape `[out, groups]`."""
        codes = torch.empty(w.shape, dtype=torch.uint8, device=w.device)
        for piece, columns, part in self._pieces(w, params):
            codes[:, columns] = self.quantize(piece, part).to(torch.uint8).reshape(w.shape[0], -1)
        return codes

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix `[out, in]` that `codes` and `params` stand for, computed in `dtype`."""
        w = torch.empty(codes.shape, dtype=dtype, device=codes.device)
        for piece, columns, part in self._pieces(codes, params):
            w[:, columns] = self.dequantize(piece, part, dtype).reshape(codes.shape[0], -1)
        return w

    def fit(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """Parameters that bring nearest rounding of `w [out, in]` closest, in importance-weighted squares.

        importance: `[in]` (a diagonal second moment) or `[out, in]`, non-negative; None weighs all columns alike.
        Returns `scale [out, groups]` in the stored type, with `zero` (uint8) or `offset` (stored type).
        """
        rows, columns = w.shape
        parts: list[Params] = []
        size = self.group or columns
        whole = columns // size * size
        for start, end, group in ((0, whole, size), (whole, columns, columns - whole)):
            if start == end:
                continue
            weight = None
            if importance is not None:
                weight = importance[..., start:end].expand(rows, end - start).reshape(-1, group)
            found = self.candidates(w[:, start:end].reshape(-1, group), weight, keep=1)
            parts.append({k: v[0].reshape(rows, -1) for k, v in found.items()})
        return {k: torch.cat([p[k] for p in parts], dim=1) for k in parts[0]}

    def candidates(self, w: Tensor, importance: Tensor | None, keep: int) -> Params:
        """The `keep` best parameter sets of each row of `w [n, group]` under nearest rounding, best first.

        importance: `[group]`, `[n, group]` or None. Candidates are shrunken ranges, each improved by weighted least
        squares given its codes (the closed form of llama.cpp's K-quants). The most promising are rounded as stored and
        ranked by the error of the codes they then give. Returns `[keep, n]`.
        """
        if importance is None:
            importance = w.new_ones(w.shape[1], dtype=torch.float32)
        size = max(1, _CACHED // w.shape[1])
        parts = [
            self._candidates(
                w[i : i + size].float(), importance if importance.dim() == 1 else importance[i : i + size], keep
            )
            for i in range(0, len(w), size)
        ]
        return {k: torch.cat([part[k] for part in parts], dim=1) for k in parts[0]}

    def _candidates(self, w: Tensor, weight: Tensor, keep: int) -> Params:
        weight = weight.float().clamp_min(0)
        # Only ratios matter. A group whose importance is all zero (dead inputs) is still rounded sensibly: all alike.
        total = weight.sum(-1, keepdim=True)
        weight = torch.where(total > 0, weight / total.clamp_min(torch.finfo(torch.float32).tiny), 1.0 / w.shape[1])
        losses: list[Tensor] = []
        tried: list[Params] = []
        starts = list(self._starts(w))
        plain = starts[0]
        for start in starts:
            params, loss = self._least_squares(w, weight, self.quantize(w, start), start)
            losses.append(loss)
            tried.append(params)
        # of the promising ones, the error that counts: as stored, with the codes that follow
        order = torch.cat(losses, dim=1).t().topk(min(2 * keep + 2, len(losses)), dim=0, largest=False).indices
        best = {k: torch.cat([p[k] for p in tried], dim=1).t().gather(0, order) for k in tried[0]}
        # the whole range as it is always takes part: the search is never worse than min-max rounding
        best = self._stored({k: torch.cat([v, plain[k].t()]) for k, v in best.items()})
        errors = []
        for i in range(len(order)):
            params = {k: v[i][:, None] for k, v in best.items()}
            error = w - self.dequantize(self.quantize(w, params), params)
            errors.append(_weighted(error.square_(), weight)[:, 0])
        order = torch.stack(errors).topk(min(keep, len(errors)), dim=0, largest=False, sorted=True).indices
        return {k: v.gather(0, order) for k, v in best.items()}

    # -- the search's parts ---------------------------------------------------------------------------------------

    def _starts(self, w: Tensor) -> Iterator[Params]:
        """Unrounded parameter sets `[n, 1]` to start the search from; the first is the whole range."""
        low, high, count = _SHRINK.get(self.bits, _SHRINK_WIDE)
        factors = [1.0, *torch.linspace(low, high, count).tolist()]
        if self.zero == "none":
            index = w.abs().argmax(1, keepdim=True)
            extreme = w.gather(1, index) / -self.half
            for factor in factors:
                yield {"scale": extreme * factor}
            # The other sign: its far end is the smaller extreme, so the larger one is clipped or the step is wider.
            for factor in factors[:: 3 if self.bits > 3 else 1]:
                yield {"scale": -extreme * factor}
            yield {"scale": -extreme * self.half / (self.half - 1)}
            return
        low_end = w.amin(1, keepdim=True)
        high_end = w.amax(1, keepdim=True)
        if self.zero == "real":
            centre, span = (low_end + high_end) / 2, (high_end - low_end) / self.top
            for factor in factors:
                yield {"scale": span * factor, "offset": centre - span * factor * self.top / 2}
            return
        low_end, high_end = low_end.clamp_max(0), high_end.clamp_min(0)
        span = (high_end - low_end) / self.top
        # One-sided or constant groups keep a zero at the end of the grid.
        middle = torch.round(-low_end / torch.where(span == 0, torch.ones_like(span), span)).clamp_(0, self.top)
        reach = 2 if self.bits <= 3 else 1
        for shift in sorted(range(-reach, reach + 1), key=abs):
            zero = (middle + shift).clamp(0, self.top)
            for factor in factors if shift == 0 or self.bits <= 4 else factors[::2]:
                yield {"scale": span * factor, "zero": zero}

    def _least_squares(self, w: Tensor, weight: Tensor, codes: Tensor, start: Params) -> tuple[Params, Tensor]:
        """The best scale (and real zero) given `codes [n, group]`, and minus the loss it saves; all `[n, 1]`."""
        if self.zero == "real":
            weighted = codes * w
            sw = weight.sum(-1, keepdim=True) if weight.dim() == 2 else weight.sum()
            sc, scc = _weighted(codes, weight), _weighted(codes.square(), weight)
            sx, scx = _weighted(w, weight), _weighted(weighted, weight)
            det = sw * scc - sc * sc
            flat = det <= 1e-6 * sw * scc  # all codes equal: any scale does, the offset takes the mean
            slope = (sw * scx - sc * sx) / torch.where(flat, 1.0, det)
            saved = torch.where(flat, 0.0, slope * (scx - sc * sx / sw)) + sx * sx / sw
            scale = torch.where(flat, start["scale"], slope).to(self.scale_dtype).float()
            # the offset makes up for the scale's rounding
            return {"scale": scale, "offset": (sx - scale * sc) / sw}, -saved
        centred = codes.sub_(start["zero"] if self.zero == "int" else self.half)
        top = _weighted(centred * w, weight)
        bottom = _weighted(centred.square_(), weight)
        scale = torch.where(bottom > 0, top / torch.where(bottom > 0, bottom, 1.0), start["scale"])
        return {**start, "scale": scale}, -scale * top

    def _stored(self, params: Params) -> Params:
        """Parameters rounded to the types they are stored in."""
        stored = {"scale": params["scale"].to(self.scale_dtype)}
        if self.zero == "int":
            stored["zero"] = params["zero"].to(torch.uint8)
        if self.zero == "real":
            stored["offset"] = params["offset"].to(self.scale_dtype)
        return stored

    def _pieces(self, x: Tensor, params: Params) -> Iterator[tuple[Tensor, slice, Params]]:
        """Whole groups as `[out, groups, group]` and the ragged last one, with their parameters `[out, groups, 1]`."""
        rows, columns = x.shape
        size = self.group or columns
        count = columns // size
        if count:
            yield (
                x[:, : count * size].reshape(rows, count, size),
                slice(0, count * size),
                {k: v[:, :count, None] for k, v in params.items()},
            )
        if columns % size:
            yield x[:, count * size :], slice(count * size, columns), {k: v[:, -1:] for k, v in params.items()}


def safe_scale_dtype(w: Tensor, grid: IntegerGrid) -> torch.dtype:
    """The stored type of scales that holds those of `w`: the grid's own, or float32 where float16 would lose them.

    float16 scales of weights below about 1e-4 are subnormal and erase precision (hqq 0.2.8 erases such layers
    altogether), and above 65504 they are infinite.
    """
    if grid.scale_dtype != torch.float16:
        return grid.scale_dtype
    largest = max((w[:, a:b].abs().amax().item() for a, b in grid.groups(w.shape[1])), default=0.0)
    peak = w.abs().amax(1)
    smallest = peak[peak > 0].min().item() if (peak > 0).any() else 1.0
    # a real zero is as large as the weights themselves
    biggest = largest if grid.zero == "real" else largest / grid.half
    fits = biggest < _FP16_NORMAL[1] and smallest / grid.top > _FP16_NORMAL[0] / 16
    return torch.float16 if fits else torch.float32


def _weighted(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of the rows of `x [n, group]`, `[n, 1]`; `weight` is `[group]` or `[n, group]`."""
    return (x @ weight)[:, None] if weight.dim() == 1 else torch.linalg.vecdot(x, weight)[:, None]
