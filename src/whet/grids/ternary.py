"""ggml's ternary types: -1, 0 or 1 times a float16 scale that 256 weights share, TQ1_0 and TQ2_0.

Both hold the same numbers. TQ2_0 has four codes in a byte and takes 2.0625 bits a weight, TQ1_0 five, as digits to base
3, and takes 1.6875. They were made for models that were trained on such weights (BitNet b1.58: Ma et al. 2024, arXiv
2402.17764), of which ggml takes the largest weight for the scale; here the scale is searched.

The best scale for a group is known exactly. Nearest rounding makes the k largest weights ±1, and for these, weighed by
importance, the best scale is Σ m|x| / Σ m, which saves (Σ m|x|)² / Σ m: one sort, and k is the best of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet.grids.grid import Params
from whet.grids.least_squares import errors, usable
from whet.grids.levels import Levels, inverse
from whet.grids.packing import pack_digits
from whet.grids.table import TableGrid

# Of several candidates, which a solver compares by what it pays: what the best one's threshold is multiplied by. With
# two of them GPTQ itself loses 5 % less than with the best alone, descent after it 1 to 2 %.
_SPREAD = (1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6)


@dataclass(frozen=True)
class TernaryGrid(TableGrid):
    """Where a linear's weights may land: codes 0, 1 and 2 stand for -1, 0 and 1.

    in_byte: codes in a byte as stored, 4 or 5; each group begins a new byte where it is 5.
    """

    values: tuple[float, ...] = (-1, 0, 1)
    in_byte: int = 4

    @property
    def top(self) -> int:
        """Largest code."""
        return 2

    def nbytes(self, rows: int, columns: int) -> int:
        """Exact bytes of codes and scales of a `[rows, columns]` matrix as `stored_parts` has them."""
        if self.in_byte == 4:
            return super().nbytes(rows, columns)
        return rows * sum(-(-(end - start) // 5) + self.scale_dtype.itemsize for start, end in self.groups(columns))

    def table_entry(self, decode: str) -> dict[str, Any]:
        """How a linear on it is read."""
        return super().table_entry(decode) | ({"in_byte": self.in_byte} if self.in_byte == 5 else {})

    def _packed(self, codes: Tensor) -> Tensor:
        return pack_digits(codes, self.group) if self.in_byte == 5 else super()._packed(codes)

    def bind(self, params: Params) -> Levels:  # type: ignore[override]
        """The grid's levels under `params`, float32."""
        scale = params["scale"].float()
        return Levels(inverse(scale), torch.ones_like(scale), scale, -scale, self.top)

    def _candidates(self, x: Tensor, weight: Tensor, keep: int) -> Params:
        """The best scales `[keep, n]` for weights `x [group, n]`, the very best first."""
        size, order = x.abs().sort(0, descending=True)
        usual = usable(weight)
        share = (usual[:, None] if usual.dim() == 1 else usual).expand_as(x).gather(0, order).double()
        total, count = (size * share).cumsum(0), share.cumsum(0)
        saved = torch.where(count > 0, total.square() / count.clamp_min(1e-300), 0.0)
        scale = torch.where(count > 0, total / count.clamp_min(1e-300), 0.0)
        best = saved.argmax(0, keepdim=True)
        if keep > 1:
            threshold = scale.gather(0, best).float() / 2
            factors = torch.tensor(_SPREAD[:keep], device=x.device)[:, None]
            places = torch.stack([(size > f * threshold).sum(0) - 1 for f in factors]).clamp_min(0)
            return {"scale": self.stored(scale.gather(0, places))}
        # those near it, for scales are rounded, and what ggml takes
        near = (best + torch.arange(-2, 3, device=x.device)[:, None]).clamp(0, len(x) - 1)
        scales = self.stored(torch.cat([scale.gather(0, near), size[:1]]))
        losses = errors(self.bind({"scale": scales}), x, usual).nan_to_num(torch.inf)
        return {"scale": scales.gather(0, losses.argmin(0, keepdim=True))}
