"""Plain floating-point types as a grid: `F16` and `BF16`, what a weight is when it is merely stored in fewer bytes, and
`F32`, which only weights under a mask are put on.

There is nothing to fit and no code to choose: encoding is a cast, to the nearest value and to the even one between two.
Every solver therefore rounds to nearest here, but for what GPTQ does under a mask (`whet.quantize.reconstruct`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from whet.grids.grid import PLAIN, Grid, Params


@dataclass(frozen=True)
class FloatGrid(Grid):
    """Where a linear's weights may land when they are stored as `dtype`, float16, bfloat16 or float32: no group, no
    zero."""

    dtype: torch.dtype
    group = 0
    zero: Literal["none"] = "none"

    @property
    def kind(self) -> str:
        """What targets call it."""
        return PLAIN

    @property
    def bits(self) -> int:
        """Bits a weight."""
        return 8 * self.dtype.itemsize

    @property
    def name(self) -> str:
        """The scheme a user would type for it."""
        return {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}[self.dtype]

    @property
    def scale_dtype(self) -> torch.dtype:
        """The stored type; there are no scales."""
        return self.dtype

    def groups(self, columns: int) -> list[tuple[int, int]]:
        """A row is one group."""
        return [(0, columns)]

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of a `[rows, columns]` matrix."""
        return rows * columns * self.dtype.itemsize

    def fit(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """No parameters."""
        return {}

    def encode(self, w: Tensor, params: Params) -> Tensor:
        """`w` in the stored type; beyond its range infinite, which whoever stores it refuses."""
        return w.to(self.dtype)

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights in `dtype`."""
        return codes.to(dtype)

    def table_entry(self, decode: str) -> dict[str, Any]:
        """How a linear on it is read: as a plain tensor."""
        return {"bits": self.bits, "group": self.group, "zero": self.zero, "decode": "plain"}

    def stored_parts(self, codes: Tensor, params: Params) -> dict[str, Tensor]:
        """The tensor itself."""
        return {"weight": codes.contiguous()}
