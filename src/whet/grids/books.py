"""Books: a few values in ascending order, which of them is nearest, and levels that are theirs times a scale.

- `e4m3`, `e5m2`: finite values of torch's float8_e4m3fn and float8_e5m2 (Micikevicius et al. 2022, arXiv 2209.05433)
- `e2m1`: the values of FP4 in the OCP Microscaling formats 1.0: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives
- any table of values in ascending order (`table`)

A code is the place of a value in that order, so that codes next to each other are values next to each other. The two
zeros of a float are one code, its NaNs and infinities none.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from whet.checkpoint.modeling_whet import E2M1
from whet.grids.levels import Levels, inverse

FLOAT8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
# Equal cells between the ends of a small book: so narrow that none holds two borders between values.
_CELLS = 64


@dataclass(frozen=True)
class Book:
    """A few values on one device.

    values: float32, ascending, from `low` to `top`. stored: uint8, what a file has for each code. zero: the code of 0,
    -1 where 0 is no value. dtype: of which type these are all values, None for a small book, which has `_CELLS` cells
    between its ends: they tell for each number the code that it has below (`first`) and above (one more) the only
    border in its cell (`edge`).
    """

    values: Tensor
    low: float
    top: float
    stored: Tensor
    zero: int
    dtype: torch.dtype | None
    first: Tensor
    edge: Tensor

    def codes(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The code of the value nearest to each of `x`, as floats. A NaN has any.

        A search for the place among the values (`torch.bucketize`) takes five times as long.
        """
        if self.dtype is not None:
            place = x.clamp(self.low, self.top).to(self.dtype).view(torch.uint8).int().flatten()
            found = self.first.index_select(0, place).view(x.shape)
        else:
            place = _cell(x, self.low, self.top).flatten()
            found = self.first.index_select(0, place).view(x.shape)
            found += x > self.edge.index_select(0, place).view(x.shape)
        return found if out is None else out.copy_(found)

    def value(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values of `codes`, of whatever type, in `dtype`."""
        return self.values.to(dtype).index_select(0, codes.int().flatten()).view(codes.shape)


@functools.cache
def book(of: str | tuple[float, ...], device: torch.device) -> Book:
    """The book of a float (`e4m3`, `e5m2`, `e2m1`) or of a table of values, which ascend, on `device`.

    A table must be even enough for no cell to have two borders: values lie more than 1/64 of the range apart.
    """
    dtype = FLOAT8.get(of) if isinstance(of, str) else None
    if dtype is not None:
        every = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    else:
        every = torch.tensor(E2M1 if isinstance(of, str) else of, dtype=torch.float32)
    values = every[every.isfinite()].unique() + 0.0  # of the two zeros the positive one
    stored = torch.stack([(every == v).nonzero()[0, 0] for v in values]).to(torch.uint8)
    low, top = float(values[0]), float(values[-1])
    if dtype is not None:
        first = torch.bucketize(every.nan_to_num(), values).clamp(max=len(values) - 1).float()
        edge = first.new_empty(0)
    else:
        borders = (values[1:] + values[:-1]) / 2
        cell = _cell(borders, low, top)
        first = torch.bucketize(torch.arange(_CELLS), cell).float()
        edge = torch.full((_CELLS,), torch.inf)
        edge[cell] = borders
    zeros = (values == 0).nonzero().flatten().tolist()
    values, stored, first, edge = (t.to(device) for t in (values, stored, first, edge))
    return Book(values, low, top, stored, zeros[0] if zeros else -1, dtype, first, edge)


def _cell(x: Tensor, low: float, top: float) -> Tensor:
    """The cell of each of `x`. Borders find theirs by the same rounding, so none is on the wrong side of a number."""
    return x.sub(low).mul_(_CELLS / (top - low)).nan_to_num_(0).clamp_(0, _CELLS - 1).int()


@dataclass(frozen=True)
class BookLevels(Levels):
    """Levels anywhere: the values of `book` times the scale."""

    book: Book = field(kw_only=True)

    @classmethod
    def of(cls, book: Book, scale: Tensor) -> BookLevels:
        """The values of `book` under `scale`, float32."""
        steps, nothing = inverse(scale), torch.zeros_like(scale)
        return cls(steps, nothing, scale, nothing, len(book.values) - 1, book=book)

    def __getitem__(self, index: int) -> BookLevels:
        """The levels of one of several parameter sets stacked along the first dimension."""
        return replace(self, inverse=self.inverse[index], scale=self.scale[index])

    def codes(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Nearest codes of `x`, as floats."""
        return self.book.codes(x * self.inverse, out)

    def value(self, codes: Tensor) -> Tensor:
        """What `codes` stand for."""
        return self.book.value(codes) * self.scale

    def along(self, codes: Tensor) -> Tensor:
        """What the scale multiplies, in the place of `codes`."""
        return codes.copy_(self.book.value(codes))
