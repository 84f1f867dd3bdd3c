"""Code books: the few values that weights may have up to a scale, in ascending order, and which of them is nearest.

- `e4m3`, `e5m2`: finite values of torch's float8_e4m3fn and float8_e5m2 (Micikevicius et al. 2022, arXiv 2209.05433)
- `e2m1`: the values of FP4 in the OCP Microscaling formats 1.0: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives
- `nf4`: NormalFloat, as QLoRA defines it (Dettmers et al. 2023, arXiv 2305.14314, appendix E) and bitsandbytes has it

A code is the place of a value in that order, so that codes next to each other are values next to each other. The two
zeros of a float are one code, its NaNs and infinities none.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.checkpoint.modeling_whet import E2M1, NF4

FLOAT8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
# Equal cells between the ends of a small book: so narrow that none holds two borders between values.
_CELLS = 64


@dataclass(frozen=True)
class Book:
    """A code book on one device.

    values: float32, ascending. stored: uint8, what a file has for each code. zero: the code of 0. dtype: of which type
    these are all values, None for a small book; then cells of one `width` from `low` on tell for each number the code
    that it has below (`first`) and above (one more) the only border in that cell (`edge`).
    """

    values: Tensor
    stored: Tensor
    zero: int
    dtype: torch.dtype | None
    first: Tensor
    edge: Tensor
    low: float
    width: float

    @property
    def top(self) -> float:
        """The largest value."""
        return float(self.values[-1])

    def codes(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The code of the value nearest to each of `x`, as floats. A NaN has any.

        A search for the place among the values (`torch.bucketize`) takes five times as long.
        """
        if self.dtype is not None:
            cast = x.clamp(-self.top, self.top).to(self.dtype)
            place = cast.view(torch.uint8).int()
            found = self.first.index_select(0, place.flatten()).view(x.shape)
        else:
            place = x.sub(self.low).mul_(1 / self.width).nan_to_num_(0).clamp_(0, _CELLS - 1).int().flatten()
            found = self.first.index_select(0, place).view(x.shape)
            found += x > self.edge.index_select(0, place).view(x.shape)
        return found if out is None else out.copy_(found)

    def value(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values of `codes`, of whatever type, in `dtype`."""
        return self.values.to(dtype).index_select(0, codes.int().flatten()).view(codes.shape)


@functools.cache
def book(name: str, device: torch.device) -> Book:
    """The code book `name` on `device`."""
    if name in FLOAT8:
        every = torch.arange(256, dtype=torch.uint8).view(FLOAT8[name]).float()
        values = every[every.isfinite()].unique() + 0.0  # of the two zeros the positive one
        stored = torch.stack([(every == v).nonzero()[0, 0] for v in values]).to(torch.uint8)
        first = torch.bucketize(every.nan_to_num(), values).clamp(max=len(values) - 1).float()
        edge, low, width = first.new_empty(0), 0.0, 1.0
    else:
        values, order = torch.tensor(NF4 if name == "nf4" else sorted(set(E2M1))), E2M1
        stored = torch.tensor([(NF4 if name == "nf4" else order).index(v) for v in values.tolist()], dtype=torch.uint8)
        low, width = float(values[0]), float(values[-1] - values[0]) / _CELLS
        borders = (values[1:] + values[:-1]) / 2
        cell = ((borders - low) / width).int()
        first = torch.bucketize(torch.arange(_CELLS), cell, right=False).float()
        edge = torch.full((_CELLS,), torch.inf)
        edge[cell] = borders
    zero = int((values == 0).nonzero())
    tensors = [t.to(device) for t in (values, stored, first, edge)]
    return Book(tensors[0], tensors[1], zero, FLOAT8.get(name), tensors[2], tensors[3], low, width)
