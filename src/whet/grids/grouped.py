"""What grids have in common whose weights share a scale in groups along a row."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from whet.grids.grid import CodedGrid, Params

# Weights fitted at once: few enough for a candidate's intermediate tensors to stay in cache, and enough for operations
# on one number a group not to count (with half as many the search takes a seventh longer).
CACHED = 1 << 17
_FP16_NORMAL = (2.0**-14, 65504.0)


class GroupedGrid(CodedGrid):
    """A grid with a scale for each group of a row, the last of which may be shorter.

    block: the name of ggml's block type that it is, if it is one.
    """

    block: str = ""

    @property
    @abstractmethod
    def extent(self) -> tuple[float, float]:
        """How many scales the largest weight is, and how many lie between it and the one farthest from it, or zero."""

    def stored(self, x: Tensor) -> Tensor:
        """Scales, or real zeros, as they will be stored."""
        return x.to(self.scale_dtype)

    @abstractmethod
    def _candidates(self, x: Tensor, weight: Tensor, keep: int) -> Params:
        """The `keep` best parameter sets `[keep, n]` of weights `x [group, n]`, best first.

        weight: importance, `[group]` or `[group, n]`, of which only ratios matter.
        """

    def scaled(self, dtype: torch.dtype) -> GroupedGrid:
        """The grid with scales stored as `dtype`, unless their type belongs to it: 8 bits, and that of a block type."""
        fixed = self.block or self.scale_dtype.itemsize == 1
        return self if fixed else dataclasses.replace(self, scale_dtype=dtype)  # type: ignore[type-var]

    def safe(self, w: Tensor) -> GroupedGrid:
        """The grid with scales of a type that holds those of `w [out, in]` (`safe_scale_dtype`)."""
        return self.scaled(safe_scale_dtype(w, self))

    def groups(self, columns: int) -> list[tuple[int, int]]:
        """Start and end column of every group of a row of `columns` weights."""
        size = self.group or columns
        return [(start, min(start + size, columns)) for start in range(0, columns, size)]

    def quantize(self, x: Tensor, params: Params) -> Tensor:
        """Nearest codes (as floats) of `x`; `params` broadcast against `x`. NaN never comes out of finite input."""
        return self.bind(params).codes(x.float())

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
        Returns `[out, groups]` each, as stored: `scale`, and what else the grid has.
        """
        rows, columns = w.shape
        parts: list[Params] = []
        size = self.group or columns
        whole = columns // size * size
        # several groups at once, unless they reach over several rows
        alone = [(start, end, end - start) for start, end in self.groups(columns)]
        spans = alone if self.rows != 1 else [(0, whole, size), (whole, columns, columns - whole)]
        for start, end, group in spans:
            if start == end:
                continue
            weight = None
            if importance is not None:
                weight = importance[..., start:end].expand(rows, end - start).reshape(-1, group)
            found = self.candidates(w[:, start:end].reshape(-1, group), weight, keep=1)
            parts.append({k: v[0].reshape(rows, -1) for k, v in found.items()})
        return {k: torch.cat([p[k] for p in parts], dim=1) for k in parts[0]}

    def candidates(self, w: Tensor, importance: Tensor | None, keep: int, shared: Params | None = None) -> Params:
        """The `keep` best parameter sets of each row of `w [n, group]` under nearest rounding, best first.

        importance: `[group]`, `[n, group]` or None. shared: as of this group (`shared`). Returns `[keep, n]`.
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


def safe_scale_dtype(w: Tensor, grid: GroupedGrid) -> torch.dtype:
    """The stored type of scales that holds those of `w`: the grid's own, or float32 where float16 would lose them.

    float16 scales of weights below about 1e-4 are subnormal and erase precision (hqq 0.2.8 erases such layers
    altogether), and above 65504 they are infinite.
    """
    if grid.scale_dtype != torch.float16 or grid.block:
        return grid.scale_dtype
    largest = max((w[:, a:b].abs().amax().item() for a, b in grid.groups(w.shape[1])), default=0.0)
    peak = w.abs().amax(1)
    smallest = peak[peak > 0].min().item() if (peak > 0).any() else 1.0
    ends, span = grid.extent
    fits = largest / ends < _FP16_NORMAL[1] and smallest / span > _FP16_NORMAL[0] / 16
    return torch.float16 if fits else torch.float32
