"""Codes into the bit stream that compressed-tensors (0.18 and later) and whet's own container store."""

from __future__ import annotations

import torch
from torch import Tensor

from whet.grids import FloatGrid, Grid, NestedGrid
from whet.grids.integer import Params

# Codes packed at a time: the working copy takes eight bytes a code.
_AT_ONCE = 1 << 22


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes uint8 `[rows, columns]` below 2^bits as int32 `[rows, ceil(columns * bits / 32)]`, little-endian, dense.

    Byte for byte what `compressed_tensors.pack_to_int32` writes since 0.18; before, 3, 5, 6 and 7 bits lay differently.
    """
    rows, columns = codes.shape
    step = max(1, _AT_ONCE // max(columns, 1))
    if rows > step:
        return torch.cat([pack(codes[i : i + step], bits) for i in range(0, rows, step)])
    count = -(-columns // 32)
    padded = torch.zeros(rows, count * 32, dtype=torch.int64, device=codes.device)
    padded[:, :columns] = codes
    padded = padded.view(rows, count, 32)
    words = torch.zeros(rows, count, bits, dtype=torch.int64, device=codes.device)
    for i in range(32):
        word, shift = divmod(i * bits, 32)
        words[:, :, word] |= padded[:, :, i] << shift
        if shift + bits > 32:
            words[:, :, word + 1] |= padded[:, :, i] >> (32 - shift)
    words &= 0xFFFFFFFF
    words = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    return words.view(rows, count * bits)[:, : -(-columns * bits // 32)].contiguous()


def stored_parts(codes: Tensor, params: Params, grid: Grid) -> dict[str, Tensor]:
    """The tensors of one linear, by the names in `checkpoint.modeling_whet`, for codes `[out, in]`."""
    if isinstance(grid, FloatGrid):
        return {"weight": codes.contiguous()}
    parts = {
        "weight_packed": pack(codes, grid.bits),
        "weight_scale": params["scale"].contiguous(),
        "weight_shape": torch.tensor(codes.shape, dtype=torch.int64),
    }
    if isinstance(grid, NestedGrid):
        numbers = [params[name] for name in ("part_scale", "part_offset") if name in params]
        parts["weight_parts"] = pack(torch.cat(numbers, dim=1).t().contiguous(), grid.part_bits).t().contiguous()
    if grid.zero == "int":
        parts["weight_zero_point"] = pack(params["zero"].t().contiguous(), grid.bits).t().contiguous()
    elif grid.zero == "real":
        parts["weight_offset"] = params["offset"].contiguous()
    return parts
