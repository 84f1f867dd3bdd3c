"""Codes into what files store: the bit stream of compressed-tensors (0.18 and later), bytes of FP8, halves of FP4."""

from __future__ import annotations

import torch
from torch import Tensor

from whet.checkpoint.modeling_whet import digit_places
from whet.errors import GateError
from whet.grids import FloatGrid, Grid, NestedGrid, SmallFloatGrid, TernaryGrid
from whet.grids.grouped import Params
from whet.grids.shifted import SHIFT_BITS

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
    if isinstance(grid, SmallFloatGrid):
        return _float_parts(codes, params, grid)
    five = isinstance(grid, TernaryGrid) and grid.in_byte == 5
    parts = {
        "weight_packed": pack_digits(codes, grid.group) if five else pack(codes, grid.bits),
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


def pack_digits(codes: Tensor, group: int) -> Tensor:
    """Codes below 3 uint8 `[rows, columns]`, five in a byte as digits to base 3, the first the lowest, each group of
    `group` columns from a new byte on: uint8 `[rows, bytes]`."""
    place, digit = digit_places(codes.shape[1], group, codes.device)
    packed = codes.new_zeros(len(codes), int(place[-1]) + 1)
    for power in range(5):
        mine = digit == power
        packed[:, place[mine]] += codes[:, mine] * 3**power
    return packed


def pack_halves(codes: Tensor) -> Tensor:
    """Codes below 16 uint8 `[rows, columns]`, two in a byte, the first in its lower half: `[rows, columns / 2]`."""
    padded = torch.nn.functional.pad(codes, (0, codes.shape[1] % 2))
    return padded[:, ::2] | padded[:, 1::2] << 4


def _float_parts(codes: Tensor, params: Params, grid: SmallFloatGrid) -> dict[str, Tensor]:
    book, scale = grid.book(codes.device), params["scale"]
    raw = book.stored[codes.int()]
    if book.dtype is not None:
        size = grid.rows or len(scale)
        kept = scale[::size].contiguous()
        if not torch.equal(kept.repeat_interleave(size, 0)[: len(scale)], scale):
            raise GateError(
                "{grid}: rows that share a scale have several. This is a defect of whet; report it.", grid=grid.name
            )
        return {"weight": raw.view(book.dtype), "weight_scale": kept if grid.rows else kept.flatten()}
    if grid.scales == "e8m0":  # a power of two is its exponent
        exponents = (scale.contiguous().view(torch.int32) >> 23).to(torch.uint8)
        return {"weight_packed": pack_halves(raw), "weight_scale": exponents}
    if not grid.scales:
        parts = {"weight_packed": pack_halves(raw), "weight_scale": scale.contiguous()}
        if "shift" in params:
            parts["weight_parts"] = pack(params["shift"].t().contiguous(), SHIFT_BITS).t().contiguous()
        return parts
    divisors = params["divisor"].unique()
    if len(divisors) != 1:
        raise GateError(
            "{grid}: parts of one tensor have several divisors. This is a defect of whet; report it.", grid=grid.name
        )
    return {
        "weight_packed": pack_halves(raw),
        "weight_scale": scale.to(grid.scale_dtype).contiguous(),
        "weight_global_scale": divisors,
    }
