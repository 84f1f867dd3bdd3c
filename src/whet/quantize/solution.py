"""What every solver returns, and the parts they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from whet.errors import UsageError
from whet.grids import CodedGrid, Grid, Params
from whet.messages import Message

# Columns that go one at a time between two matrix products: what is fed forward from further back arrives in a product,
# and only the last few columns are added by vector products, which are bound by memory.
COLUMNS = 16
# Weights that are solved at a time, whole rows of them: a solver holds ten times as many bytes, and more on the way.
SLICE = 1 << 23
_SAMPLED = 128
# Linears of more weights than this take long enough for speed to matter.
LARGE = 1 << 21


@dataclass
class Solution:
    """Codes `uint8 [out, in]`, parameters `[out, groups]` as stored, and remarks for the report."""

    codes: Tensor
    params: Params
    notes: list[Message] = field(default_factory=list)

    @classmethod
    def of_rows(cls, parts: Sequence[Solution]) -> Solution:
        """Rows that were solved apart, one part under the other."""
        return cls(
            torch.cat([s.codes for s in parts]),
            {k: torch.cat([s.params[k] for s in parts]) for k in parts[0].params},
            list(dict.fromkeys(note for s in parts for note in s.notes)),
        )

    def rows(self, start: int, end: int) -> Solution:
        """The part that belongs to rows `start:end`: linears that were solved together are taken apart again."""
        return Solution(self.codes[start:end], {k: v[start:end] for k, v in self.params.items()}, list(self.notes))


def row_slices(w: Tensor, together: int) -> list[slice]:
    """Slices of the rows of `w [out, in]` of `SLICE` weights at most, whole runs of rows that belong `together` (0: all
    of them do)."""
    step = max(1, SLICE // max(1, w.shape[1]))
    step = max(together, step // together * together) if together else len(w)
    return [slice(start, min(start + step, len(w))) for start in range(0, len(w), max(1, step))]


def steering_type(w: Tensor) -> torch.dtype:
    """The type of the large products that only steer which code is chosen: bfloat16 for a large `w` on a processor that
    multiplies it fast, else float32.

    The errors GPTQ feeds forward, and how much a gradient changed since it was last computed, are small corrections. A
    relative error of 2⁻⁹ of one changes a code only where it lies between two anyway. Over 512 rows the objective then
    came out within 0.3 % either way (0.5 % lower at best), on a random Llama's inputs as on made-up ones with a few
    channels a thousand times the others or a mean five times their deviation. Whole gradients are another matter: on
    inputs with that mean their terms nearly cancel, and in bfloat16 descent lost a third of what it gains. They stay in
    float32.
    """
    if w.device.type != "cpu" or w.numel() <= LARGE:
        return torch.float32
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def masked_codes(codes: Tensor, params: Params, grid: CodedGrid, kept: Tensor) -> Tensor:
    """`codes` with the code of exactly zero wherever `kept` (bool, broadcastable) is False."""
    zero = grid.zero_value(params)
    if zero is None:
        raise UsageError(
            "{grid} cannot hold exact zeros: 0 is none of its values. So a mask cannot be kept. For sparse weights use "
            "a scheme with a zero, such as int4 or int4s.",
            grid=grid.name,
        )
    return torch.where(kept, codes, zero.to(codes.dtype))


def holds_zero(grid: Grid) -> bool:
    """Whether a weight can be exactly 0 on `grid`, as a mask needs."""
    one = torch.ones(1)
    return grid.coded is None or grid.coded.zero_value({"scale": one, "zero": one}) is not None


def second_moment_error(w: Tensor, rounded: Tensor, h: Tensor) -> float:
    """tr(R h Rᵀ) / tr(w h wᵀ) of the error R = w − rounded `[out, in]`: the share of the output's energy lost.

    For a report: of many rows it takes at most `_SAMPLED`, evenly spaced, because all would cost what solving does.
    """
    step = -(-len(w) // _SAMPLED)
    w = w[::step].float()
    residual = w - rounded[::step]
    size = ((w @ h) * w).sum().item()
    return ((residual @ h) * residual).sum().item() / size if size > 0 else 0.0
