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
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from whet.errors import UsageError

if TYPE_CHECKING:
    from whet.grids.codebook import CodebookGrid

Params = dict[str, Tensor]
Zero = Literal["none", "int", "real"]

# Shrink factors of the range tried by `fit`. Fewer bits want a smaller range and a finer search: at 2 bits the best
# symmetric range of Gaussian groups of 128 is about half the largest weight.
_SHRINK = {2: (0.35, 1.1, 26), 3: (0.5, 1.08, 20), 4: (0.62, 1.06, 12), 5: (0.74, 1.04, 10)}
_SHRINK_WIDE = (0.86, 1.02, 8)
# Weights fitted at once: few enough for a candidate's intermediate tensors to stay in cache, and enough for operations
# on one number a group not to count (with half as many the search takes a seventh longer).
CACHED = 1 << 17
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

    def __getitem__(self, index: int) -> Levels:
        """The levels of one of several parameter sets stacked along the first dimension."""
        return Levels(self.inverse[index], self.shift[index], self.scale[index], self.offset[index], self.top)

    def codes(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Nearest codes of `x`, as floats."""
        return torch.addcmul(self.shift, x, self.inverse, out=out).round_().clamp_(0, self.top)

    def value(self, codes: Tensor) -> Tensor:
        """What `codes` stand for."""
        return torch.addcmul(self.offset, codes, self.scale)


@dataclass(frozen=True)
class IntegerGrid:
    """Where a linear's weights may land.

    bits: 2 to 8. group: weights along a row that share a scale; 0 means the whole row (per channel).
    zero: `none`, `int` or `real`. scale_dtype: stored type of scales and real zeros; grids that differ in nothing else
    are one scheme. block: the name of the block type it is (`Q4_0`), whose scales are always float16.
    """

    bits: int
    group: int
    zero: Zero = "int"
    scale_dtype: torch.dtype = field(default=torch.float16, compare=False)
    block: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise UsageError(f"An integer grid of {self.bits} bits does not exist. Choose 2 to 8 bits.")
        if self.group < 0:
            raise UsageError(f"Group size {self.group} is negative. Choose 0 (per channel) or a positive size.")

    @property
    def name(self) -> str:
        """The scheme a user would type for it, e.g. `int4-g32`."""
        if self.block:
            return self.block
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

    @property
    def extent(self) -> tuple[float, float]:
        """How many scales the largest weight is, and how many lie between it and the one farthest from it, or zero."""
        # a real zero is as large as the weights themselves
        return (1.0 if self.zero == "real" else self.half), self.top

    def suited(self, w: Tensor) -> IntegerGrid:
        """The grid with what all of the tensor `w` shares: here nothing is."""
        return self

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

    def along(self, codes: Tensor, params: Params) -> Tensor:
        """What values of `codes` (floats) gain where the scale grows by one."""
        if self.zero == "real":
            return codes
        return codes - (params["zero"].float() if self.zero == "int" else self.half)

    def stored(self, scale: Tensor) -> Tensor:
        """Scales as they will be stored."""
        return scale.to(self.scale_dtype)

    def pool(self, x: Tensor) -> Tensor:
        """Sums of `x [..., out]` over rows that share their parameters, for each of the rows: here none does."""
        return x

    # -- whole matrices -------------------------------------------------------------------------------------------

    def encode(self, w: Tensor, params: Params) -> Tensor:
        """Nearest codes, uint8, of `w [out, in]` given `params` of shape `[out, groups]`."""
        codes = torch.empty(w.shape, dtype=torch.uint8, device=w.device)
        for piece, columns, part in pieces(w, params, self.group):
            codes[:, columns] = self.quantize(piece, part).to(torch.uint8).reshape(w.shape[0], -1)
        return codes

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix `[out, in]` that `codes` and `params` stand for, computed in `dtype`."""
        w = torch.empty(codes.shape, dtype=dtype, device=codes.device)
        for piece, columns, part in pieces(codes, params, self.group):
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
        squares given its codes (the closed form of llama.cpp's K-quants), and differ as far as there are enough. A
        single one is chosen by the error of the codes that it gives as stored; several, which the caller will compare
        by a better measure, by what least squares leaves. Returns `[keep, n]`.
        """
        if importance is None:
            importance = w.new_ones(w.shape[1], dtype=torch.float32)
        size = max(1, CACHED // w.shape[1])
        # Turned, so that the parameters of many groups meet contiguous rows of weights.
        parts = [
            self._candidates(
                w[i : i + size].float().t().contiguous(),
                (importance if importance.dim() == 1 else importance[i : i + size]).t().float(),
                keep,
            )
            for i in range(0, len(w), size)
        ]
        return {k: torch.cat([part[k] for part in parts], dim=1) for k in parts[0]}

    # -- the search's parts, on weights `x [group, n]` of importance `[group]` or `[group, n]` -----------------------

    def _candidates(self, x: Tensor, weight: Tensor, keep: int) -> Params:
        weight = weight.clamp_min(0)
        # Only ratios matter. A group whose importance is all zero (dead inputs) is still rounded sensibly: all alike.
        total = weight.sum(0)
        weight = torch.where(total > 0, weight / total.clamp_min(torch.finfo(torch.float32).tiny), 1.0 / len(x))
        starts = self._starts(x)
        tried, losses = self._least_squares(x, weight, starts)
        losses, order = losses.topk(min(4 * keep, len(losses)), dim=0, largest=False, sorted=True)
        tried = {k: v.gather(0, order) for k, v in tried.items()}
        best = self._stored(tried)
        if keep == 1:
            # the whole range as it is always takes part: the search is never worse than min-max rounding
            whole = self._stored({k: v[:1] for k, v in starts.items()})
            best = {k: torch.cat([v, whole[k]]) for k, v in best.items()}
            losses = self._errors(x, weight, best)
        else:
            # Starts that gave the same codes ended up equal, next to each other now, and one is enough: at 2 bits
            # in groups of 32, GPTQ's loss is 3 % lower when 8 different ones are tried.
            again = (losses[1:] == losses[:-1]) & (tried["scale"][1:] == tried["scale"][:-1])
            losses[1:].masked_fill_(again, 0.0)
        order = losses.topk(min(keep, len(losses)), dim=0, largest=False, sorted=True).indices
        return {k: v.gather(0, order) for k, v in best.items()}

    def _starts(self, x: Tensor) -> Params:
        """Unrounded parameter sets `[starts, n]` to start the search from; the first is the whole range."""
        low, high, count = _SHRINK.get(self.bits, _SHRINK_WIDE)
        factors = torch.cat([x.new_ones(1), torch.linspace(low, high, count, device=x.device)])[:, None]
        if self.zero == "none":
            extreme = x.gather(0, x.abs().argmax(0, keepdim=True)) / -self.half
            # The other sign: its far end is the smaller extreme, so the larger one is clipped or the step is wider.
            other = -factors[:: 3 if self.bits > 3 else 1]
            mirrored = other.new_full((1, 1), -self.half / (self.half - 1))
            return {"scale": extreme * torch.cat([factors, other, mirrored])}
        low_end, high_end = x.amin(0), x.amax(0)
        if self.zero == "real":
            centre, scale = (low_end + high_end) / 2, (high_end - low_end) / self.top * factors
            return {"scale": scale, "offset": centre - scale * self.top / 2}
        low_end, high_end = low_end.clamp_max(0), high_end.clamp_min(0)
        span = (high_end - low_end) / self.top
        # One-sided or constant groups keep a zero at the end of the grid.
        middle = torch.round(-low_end / torch.where(span == 0, 1.0, span))
        scales: list[Tensor] = []
        zeros: list[Tensor] = []
        reach = 2 if self.bits <= 3 else 1
        for shift in sorted(range(-reach, reach + 1), key=abs):
            scales.append(span * (factors if shift == 0 or self.bits <= 4 else factors[::2]))
            zeros.append((middle + shift).clamp(0, self.top).expand_as(scales[-1]))
        return {"scale": torch.cat(scales), "zero": torch.cat(zeros)}

    def _least_squares(self, x: Tensor, weight: Tensor, starts: Params) -> tuple[Params, Tensor]:
        """The best scale (and real zero) for the codes of each of `starts [starts, n]`, and minus the loss it saves."""
        levels = self.bind(starts)
        codes, product = torch.empty_like(x), torch.empty_like(x)
        # weighted sums of c x, of c², and of c, where codes c are counted from zero if the grid has one
        scx, scc, sc = (torch.empty_like(levels.scale) for _ in range(3))
        for i in range(len(scx)):
            levels[i].codes(x, out=codes)
            if self.zero == "real":
                sc[i] = weighted(codes, weight)
            else:
                codes.sub_(levels.shift[i])
            scx[i] = weighted(torch.mul(codes, x, out=product), weight)
            scc[i] = weighted(codes.square_(), weight)
        if self.zero == "real":
            sx, sw = weighted(x, weight), weight.sum(0)
            det = sw * scc - sc * sc
            flat = det <= 1e-6 * sw * scc  # all codes equal: any scale does, the offset takes the mean
            slope = (sw * scx - sc * sx) / torch.where(flat, 1.0, det)
            saved = torch.where(flat, 0.0, slope * (scx - sc * sx / sw)) + sx * sx / sw
            scale = torch.where(flat, starts["scale"], slope).to(self.scale_dtype).float()
            # the offset makes up for the scale's rounding
            return {"scale": scale, "offset": (sx - scale * sc) / sw}, -saved
        scale = torch.where(scc > 0, scx / torch.where(scc > 0, scc, 1.0), starts["scale"])
        return {**starts, "scale": scale}, -scale * scx

    def _errors(self, x: Tensor, weight: Tensor, params: Params) -> Tensor:
        """Weighted squares `[sets, n]` of what nearest rounding under each of `params [sets, n]` does to `x`."""
        levels = self.bind(params)
        errors = torch.empty_like(levels.scale)
        for i in range(len(errors)):
            difference = levels[i].value(levels[i].codes(x)).sub_(x)
            errors[i] = weighted(difference.square_(), weight)
        return errors

    def _stored(self, params: Params) -> Params:
        """Parameters rounded to the types they are stored in."""
        stored = {"scale": params["scale"].to(self.scale_dtype)}
        if self.zero == "int":
            stored["zero"] = params["zero"].to(torch.uint8)
        if self.zero == "real":
            stored["offset"] = params["offset"].to(self.scale_dtype)
        return stored


def safe_scale_dtype(w: Tensor, grid: IntegerGrid | CodebookGrid) -> torch.dtype:
    """The stored type of scales that holds those of `w`: the grid's own, or float32 where float16 would lose them.

    float16 scales of weights below about 1e-4 are subnormal and erase precision (hqq 0.2.8 erases such layers
    altogether), and above 65504 they are infinite.
    """
    if grid.scale_dtype != torch.float16 or (isinstance(grid, IntegerGrid) and grid.block):
        return grid.scale_dtype
    largest = max((w[:, a:b].abs().amax().item() for a, b in grid.groups(w.shape[1])), default=0.0)
    peak = w.abs().amax(1)
    smallest = peak[peak > 0].min().item() if (peak > 0).any() else 1.0
    ends, span = grid.extent
    fits = largest / ends < _FP16_NORMAL[1] and smallest / span > _FP16_NORMAL[0] / 16
    return torch.float16 if fits else torch.float32


def pieces(x: Tensor, params: Params, group: int) -> Iterator[tuple[Tensor, slice, Params]]:
    """Whole groups as `[out, groups, group]` and the ragged last one, with their parameters `[out, groups, 1]`."""
    rows, columns = x.shape
    size = group or columns
    count = columns // size
    if count:
        yield (
            x[:, : count * size].reshape(rows, count, size),
            slice(0, count * size),
            {k: v[:, :count, None] for k, v in params.items()},
        )
    if columns % size:
        yield x[:, count * size :], slice(count * size, columns), {k: v[:, -1:] for k, v in params.items()}


def weighted(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of the columns of `x [group, n]`, `[n]`; `weight` is `[group]` or `[group, n]`."""
    return torch.mv(x.t(), weight) if weight.dim() == 1 else (x * weight).sum(0)
