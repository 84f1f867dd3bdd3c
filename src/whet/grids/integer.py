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
_SHRINK = {2: (0.35, 1.1, 26), 3: (0.5, 1.08, 20), 4: (0.62, 1.06, 16), 5: (0.74, 1.04, 12)}
_SHRINK_WIDE = (0.86, 1.02, 8)
# Chunk of weights fitted at once: bounds the working memory at about ten times 16 MiB.
_CHUNK = 1 << 22
_FP16_NORMAL = (2.0**-14, 65504.0)


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

    def quantize(self, x: Tensor, params: Params) -> Tensor:
        """Nearest codes (as floats) of `x`; `params` broadcast against `x`. NaN never comes out of finite input."""
        scale = params["scale"].to(x.dtype)
        safe = torch.where(scale == 0, torch.ones_like(scale), scale)
        if self.zero == "real":
            codes = torch.round((x - params["offset"].to(x.dtype)) / safe)
        elif self.zero == "int":
            codes = torch.round(x / safe) + params["zero"].to(x.dtype)
        else:
            codes = torch.round(x / safe) + self.half
        return codes.clamp_(0, self.top)

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
            piece = w[:, start:end].reshape(-1, group)
            weight = None
            if importance is not None:
                weight = importance[..., start:end].expand(rows, end - start).reshape(-1, group)
            found = [
                self.candidates(chunk, None if weight is None else weight[i : i + len(chunk)], keep=1)
                for i, chunk in _chunks(piece, group)
            ]
            parts.append({k: torch.cat([f[k][0] for f in found]).reshape(rows, -1) for k in found[0]})
        return {k: torch.cat([p[k] for p in parts], dim=1) for k in parts[0]}

    def candidates(self, w: Tensor, importance: Tensor | None, keep: int) -> Params:
        """The `keep` best parameter sets of each row of `w [n, group]` under nearest rounding, best first.

        Candidates are shrunken ranges, each improved by weighted least squares given its codes (the closed form of
        llama.cpp's K-quants), rounded as stored, and judged with the codes they then give. Returns `[keep, n]`.
        """
        w = w.float()
        weight = torch.ones_like(w) if importance is None else importance.to(w.dtype).clamp_min(0)
        total = weight.sum(1, keepdim=True)
        # A group whose importance is all zero (dead inputs) is still rounded sensibly: all alike.
        weight = torch.where(total > 0, weight / total.clamp_min(torch.finfo(w.dtype).tiny) * w.shape[1], 1.0)
        errors: list[Tensor] = []
        tried: list[Params] = []
        for start in self._starts(w):
            params = self._stored(self._least_squares(w, weight, self.quantize(w, start), start))
            codes = self.quantize(w, params)
            errors.append((weight * (w - self.dequantize(codes, params)).square()).sum(1))
            tried.append(params)
        order = torch.stack(errors).topk(min(keep, len(errors)), dim=0, largest=False, sorted=True).indices
        return {k: torch.stack([p[k][:, 0] for p in tried]).gather(0, order) for k in tried[0]}

    # -- the search's parts ---------------------------------------------------------------------------------------

    def _starts(self, w: Tensor) -> Iterator[Params]:
        """Unrounded parameter sets `[n, 1]` to start the search from."""
        low, high, count = _SHRINK.get(self.bits, _SHRINK_WIDE)
        factors = torch.linspace(low, high, count).tolist()
        if self.zero == "none":
            index = w.abs().argmax(1, keepdim=True)
            extreme = w.gather(1, index) / -self.half
            other = torch.where(extreme < 0, -w.amin(1, keepdim=True), w.amax(1, keepdim=True)) / self.half
            other = torch.where(extreme < 0, other, -other)
            for factor in factors:
                yield {"scale": extreme * factor}
            # The other sign: its far end is the smaller extreme, so the larger one is clipped or the step is wider.
            for factor in factors[:: 2 if self.bits > 3 else 1]:
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
        for shift in range(-reach, reach + 1):
            zero = (middle + shift).clamp(0, self.top)
            for factor in factors if shift == 0 or self.bits <= 4 else factors[::2]:
                yield {"scale": span * factor, "zero": zero}

    def _least_squares(self, w: Tensor, weight: Tensor, codes: Tensor, start: Params) -> Params:
        """The best scale (and real zero) given `codes`, by weighted least squares; shapes `[n, 1]`."""
        if self.zero == "real":
            sw = weight.sum(1, keepdim=True)
            sc = (weight * codes).sum(1, keepdim=True)
            scc = (weight * codes * codes).sum(1, keepdim=True)
            sx = (weight * w).sum(1, keepdim=True)
            scx = (weight * codes * w).sum(1, keepdim=True)
            det = sw * scc - sc * sc
            flat = det <= 1e-6 * sw * scc  # all codes equal: any scale does, the offset takes the mean
            scale = torch.where(flat, start["scale"], (sw * scx - sc * sx) / torch.where(flat, 1.0, det))
            scale = scale.to(self.scale_dtype).to(w.dtype)  # the offset then makes up for the scale's rounding
            return {"scale": scale, "offset": (sx - scale * sc) / sw}
        centred = codes - (start["zero"] if self.zero == "int" else self.half)
        bottom = (weight * centred * centred).sum(1, keepdim=True)
        top = (weight * centred * w).sum(1, keepdim=True)
        scale = torch.where(bottom > 0, top / torch.where(bottom > 0, bottom, 1.0), start["scale"])
        return {**start, "scale": scale}

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
    fits = largest / grid.half < _FP16_NORMAL[1] and smallest / grid.top > _FP16_NORMAL[0] / 16
    return torch.float16 if fits else torch.float32


def _chunks(piece: Tensor, group: int) -> Iterator[tuple[int, Tensor]]:
    step = max(1, _CHUNK // max(group, 1))
    for start in range(0, len(piece), step):
        yield start, piece[start : start + step]
