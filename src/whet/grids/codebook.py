"""Grids of a code book and a scale: FP8, NVFP4, MXFP4, NF4. A weight is `scale * value`, the value one of a few.

They differ in the book (`books`), in how many weights share a scale, and in the type that scales are stored in:

- FP8 (E4M3 or E5M2): a scale for each row, for the whole tensor, or for each block of 128 x 128;
- NVFP4: E2M1 in groups of 16 with E4M3 scales, all of which are divided by one float32 of the tensor. whet takes a
  power of two for it: every weight is then the same number whether a reader divides by it (compressed-tensors) or
  multiplies by its inverse (vLLM), and exact in bfloat16;
- MXFP4: E2M1 in groups of 32 with powers of two for scales (E8M0, OCP Microscaling formats 1.0);
- NF4: in groups of 64 as bitsandbytes has it, with scales in float16 or bfloat16, which may be negative: the book has
  one value more above zero than below.

Scales are rounded to their stored type before codes are chosen. Where that is an 8-bit type they are held as the
float32 of the same value, because torch has few operations on those.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from whet.grids.books import Book, book
from whet.grids.integer import CACHED, Params, pieces, weighted

# What the scale that puts the largest weight on the largest value is multiplied by. An FP8 grid looks alike an octave
# higher; NF4 has a mirror image, and small groups gain from a clipped weight.
_FP8 = tuple(2 ** (k / 8) for k in range(-4, 9) if k)
_NF4 = (*(0.6 + 0.05 * k for k in range(11) if k != 8), *(-0.65 - 0.1 * k for k in range(5)))
# How many octaves an FP8 scale may lie above the one that uses the largest value, where a float16 would be subnormal.
_ROOM = {"e4m3": 4, "e5m2": 10}
# E4M3 scales tried on either side of that one, 0.6 to 1.75 times it: the upper ones put the largest weight on 4.
_E4M3 = (0, *(k for k in range(-6, 7) if k))
_E8M0 = (0, 1, -1, 2)  # powers of two likewise; 0 clips what is above 6, as the specification does
# The largest scale of NVFP4 before rounding: 448 is E4M3's end, and the largest group may want a larger one.
_LARGEST = 256.0


@dataclass(frozen=True)
class BookLevels:
    """A code book under scales `[...]`, ready to round many tensors that these broadcast against."""

    book: Book
    inverse: Tensor
    scale: Tensor

    def __getitem__(self, index: int) -> BookLevels:
        """The levels of one of several scales stacked along the first dimension."""
        return BookLevels(self.book, self.inverse[index], self.scale[index])

    def codes(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Nearest codes of `x`, as floats."""
        return self.book.codes(x * self.inverse, out)

    def value(self, codes: Tensor) -> Tensor:
        """What `codes` stand for."""
        return self.book.value(codes).mul_(self.scale)


@dataclass(frozen=True)
class CodebookGrid:
    """Where a linear's weights may land. Neighbouring codes are neighbouring values.

    name: the scheme. values: of `books`. group: weights along a row that share a scale, 0 for the whole row. rows: how
    many rows share it too, 0 for all. scale_dtype: stored type of scales; float8_e4m3fn and float8_e8m0fnu belong to
    NVFP4 and MXFP4. divisor: what NVFP4's scales are divided by, 0 until a tensor is known (`suited`).
    """

    name: str
    values: Literal["e4m3", "e5m2", "e2m1", "nf4"]
    group: int = 0
    rows: int = 1
    scale_dtype: torch.dtype = field(default=torch.float16, compare=False)
    divisor: float = field(default=0.0, compare=False)
    zero: Literal["none"] = field(default="none", init=False)

    @property
    def bits(self) -> int:
        """Bits a code."""
        return 8 if self.values in ("e4m3", "e5m2") else 4

    @property
    def extent(self) -> tuple[float, float]:
        """How many scales the largest weight is, and how many lie between it and the one farthest from it, or zero."""
        top = self.book().top
        return top, top / 2 ** _ROOM.get(self.values, 0)

    @property
    def scales(self) -> str:
        """The 8-bit type of the scales, or nothing where they are plain floats."""
        return {torch.float8_e4m3fn: "e4m3", torch.float8_e8m0fnu: "e8m0"}.get(self.scale_dtype, "")

    def book(self, device: torch.device | str = "cpu") -> Book:
        """The values, on `device`."""
        return book(self.values, torch.device(device))

    def groups(self, columns: int) -> list[tuple[int, int]]:
        """Start and end column of every group of a row of `columns` weights."""
        size = self.group or columns
        return [(start, min(start + size, columns)) for start in range(0, columns, size)]

    def nbytes(self, rows: int, columns: int) -> int:
        """Exact bytes of codes and scales of a `[rows, columns]` matrix as `formats.packing` stores them."""
        code_bytes = {
            "e2m1": rows * math.ceil(columns / 2),
            "nf4": 4 * math.ceil(columns * 4 / 32) * rows,
        }.get(self.values, rows * columns)
        count = math.ceil(rows / (self.rows or rows)) * len(self.groups(columns))
        return code_bytes + count * self.scale_dtype.itemsize + (4 if self.scales == "e4m3" else 0)

    def suited(self, w: Tensor) -> CodebookGrid:
        """The grid with what all of the tensor `w` shares: NVFP4's divisor."""
        if self.scales != "e4m3" or self.divisor:
            return self
        peak = w.abs().max().item()
        power = math.floor(math.log2(_LARGEST * self.book().top) - math.log2(peak)) if 0 < peak < math.inf else 0
        return dataclasses.replace(self, divisor=2.0 ** min(max(power, -100), 100))

    # -- values ---------------------------------------------------------------------------------------------------

    def bind(self, params: Params) -> BookLevels:
        """The grid's levels under `params`, float32."""
        scale = _scale(params)
        usable = scale.abs() >= torch.finfo(torch.float32).tiny
        inverse = torch.where(usable, 1 / torch.where(usable, scale, 1.0), 0.0)
        return BookLevels(self.book(scale.device), inverse, scale)

    def quantize(self, x: Tensor, params: Params) -> Tensor:
        """Nearest codes (as floats) of `x`; `params` broadcast against `x`."""
        return self.bind(params).codes(x.float())

    def dequantize(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of `codes`, in the type the target computes in: scales are converted first, then multiplied."""
        return self.book(codes.device).value(codes, dtype) * _scale(params, dtype)

    def zero_value(self, params: Params) -> Tensor:
        """The code whose value is exactly 0 (broadcastable like `params`)."""
        return torch.full_like(params["scale"], self.book().zero, dtype=torch.float32)

    def along(self, codes: Tensor, params: Params) -> Tensor:
        """What values `codes` gain where the scale grows by one."""
        values = self.book(codes.device).value(codes)
        return values / params["divisor"] if "divisor" in params else values

    def stored(self, scale: Tensor) -> Tensor:
        """Scales as they will be stored: the nearest of their type, and none of them 0 that was not."""
        if self.scales == "e8m0":
            bits = scale.float().clamp(2.0**-126, 2.0**126).view(torch.int32)
            return ((bits + (1 << 22)) & (0xFF << 23)).view(torch.float32)
        if self.scales == "e4m3":
            return scale.float().clamp(2.0**-9, 448.0).to(self.scale_dtype).float()
        kept = scale.to(self.scale_dtype)
        kind = torch.finfo(self.scale_dtype)
        least = torch.full_like(kept, kind.smallest_normal * kind.eps).copysign(kept)
        return torch.where((kept == 0) & (scale != 0), least, kept)

    def pool(self, x: Tensor) -> Tensor:
        """Sums of `x [..., out]` over rows that share their scales, for each of the rows."""
        if self.rows == 1:
            return x
        size = self.rows or x.shape[-1]
        padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % size))
        sums = padded.unflatten(-1, (-1, size)).sum(-1)
        return sums.repeat_interleave(size, -1)[..., : x.shape[-1]]

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
        """Scales that bring nearest rounding of `w [out, in]` closest, in importance-weighted squares.

        importance: `[in]` or `[out, in]`, non-negative; None weighs all columns alike. Returns `scale [out, groups]`
        (equal in rows that share it), for NVFP4 also `divisor`, the same everywhere.
        """
        grid, (rows, columns) = self.suited(w), w.shape
        size = self.group or columns
        whole = columns // size * size
        spans = [(0, whole, size), (whole, columns, columns - whole)]
        if self.rows != 1:
            spans = [(a, b, b - a) for a, b in self.groups(columns)]
        parts: list[Params] = []
        for start, end, group in spans:
            if start == end:
                continue
            weight = None
            if importance is not None:
                weight = importance[..., start:end].expand(rows, end - start).reshape(-1, group)
            found = grid.candidates(w[:, start:end].reshape(-1, group), weight, keep=1)
            parts.append({k: v[0].reshape(rows, -1) for k, v in found.items()})
        return {k: torch.cat([p[k] for p in parts], dim=1) for k in parts[0]}

    def candidates(self, w: Tensor, importance: Tensor | None, keep: int) -> Params:
        """The `keep` best parameter sets of each row of `w [n, group]` under nearest rounding, best first.

        importance: `[group]`, `[n, group]` or None. Rows that share their scales are one group together.
        """
        count, grid = len(w), self.suited(w)
        if importance is None:
            importance = w.new_ones(w.shape[1], dtype=torch.float32)
        if self.rows != 1:
            size = self.rows or count
            missing = -count % size
            importance = torch.nn.functional.pad(importance.expand(w.shape), (0, 0, 0, missing))
            w = torch.nn.functional.pad(w, (0, 0, 0, missing))
            w, importance = (t.reshape(-1, size * t.shape[1]) for t in (w, importance))
        step = max(1, CACHED // w.shape[1])
        parts = [
            grid._search(
                w[i : i + step].float().t().contiguous(),
                (importance if importance.dim() == 1 else importance[i : i + step]).t().float(),
                keep,
            )
            for i in range(0, len(w), step)
        ]
        scale = torch.cat(parts, dim=1)
        if self.rows != 1:
            scale = scale.repeat_interleave(self.rows or count, dim=1)[:, :count]
        if self.scales != "e4m3":
            return {"scale": scale}
        return {"scale": scale, "divisor": torch.full_like(scale, grid.divisor)}

    def _search(self, x: Tensor, weight: Tensor, keep: int) -> Tensor:
        """The best scales `[keep, n]` of weights `x [group, n]` of importance `[group]` or `[group, n]`."""
        weight = weight.clamp_min(0)
        total = weight.sum(0)
        weight = torch.where(total > 0, weight / total.clamp_min(torch.finfo(torch.float32).tiny), 1.0 / len(x))
        peak = x.abs().amax(0)
        divisor = self.divisor or 1.0
        scales = self._starts(peak, divisor)
        if not self.scales:
            scales = torch.cat([scales[:1], self._refined(x, weight, scales)])
        losses = self._errors(x, weight, peak, scales.float() / divisor)
        losses, order = losses.sort(dim=0, stable=True)
        scales = scales.gather(0, order)
        losses[1:].masked_fill_(scales[1:] == scales[:-1], torch.inf)  # one of those that are equal is enough
        order = losses.topk(min(keep, len(losses)), dim=0, largest=False, sorted=True).indices
        return scales.gather(0, order)

    def _starts(self, peak: Tensor, divisor: float) -> Tensor:
        """Scales `[starts, n]` as stored, for groups whose largest weight is `peak [n]`; first the usual one."""
        if self.scales == "e8m0":
            usual = peak.frexp().exponent - 1 - int(math.log2(self.book().top))
            powers = usual + torch.tensor(_E8M0, dtype=torch.int32, device=peak.device)[:, None]
            return ((powers.clamp(-126, 126) + 127) << 23).view(torch.float32)
        usual = peak / self.book().top * divisor
        if self.scales == "e4m3":
            e4m3 = book("e4m3", peak.device)
            places = e4m3.codes(self.stored(usual)) + torch.tensor(_E4M3, device=peak.device)[:, None]
            return e4m3.value(places.clamp(e4m3.zero + 1, len(e4m3.values) - 1))
        normal = torch.finfo(self.scale_dtype).smallest_normal
        raised = torch.maximum(usual, (usual * 2 ** _ROOM.get(self.values, 0)).clamp_max(normal))
        factors = torch.tensor(_NF4 if self.values == "nf4" else (1.0, *_FP8), device=peak.device)
        return self.stored(torch.cat([usual[None], raised * factors[:, None]]))

    def _refined(self, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
        """The best scale for the codes that each of `scales [starts, n]` gives, as stored."""
        levels, found = self.bind({"scale": scales}), []
        for i in range(len(scales)):
            values = levels.book.value(levels[i].codes(x))
            curve = weighted(values.square(), weight)
            found.append(weighted(values.mul_(x), weight) / curve.where(curve > 0, torch.inf))
        best = self.stored(torch.stack(found))
        return torch.where((best == 0) | ~best.isfinite(), scales, best)

    def _errors(self, x: Tensor, weight: Tensor, peak: Tensor, scales: Tensor) -> Tensor:
        """Weighted squares `[sets, n]` of what nearest rounding does to `x`, as shares of the largest weight's."""
        levels = self.bind({"scale": scales})
        share = 1 / peak.where(peak >= torch.finfo(torch.float32).tiny, 1.0)
        errors = [
            weighted(levels[i].value(levels[i].codes(x)).sub_(x).mul_(share).square_(), weight)
            for i in range(len(scales))
        ]
        return torch.stack(errors).nan_to_num(torch.inf)


def _scale(params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
    """What values are multiplied by. NVFP4's quotient is exact, whatever the type."""
    if "divisor" in params:
        return (params["scale"].float() / params["divisor"]).to(dtype)
    return params["scale"].to(dtype)
