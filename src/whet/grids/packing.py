"""Codes into what files store: the bit stream of compressed-tensors (0.18 and later), digits to base 3, halves."""

from __future__ import annotations

import torch
from torch import Tensor

from whet.checkpoint.modeling_whet import digit_places, unpack

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


def pack_columns(numbers: Tensor, bits: int) -> Tensor:
    """Numbers uint8 `[rows, columns]` packed along rows, int32 `[ceil(rows * bits / 32), columns]`."""
    return pack(numbers.t().contiguous(), bits).t().contiguous()


def unpack_columns(words: Tensor, bits: int, rows: int) -> Tensor:
    """Numbers uint8 `[rows, columns]` from what `pack_columns` made of them."""
    return unpack(words.t().contiguous(), bits, rows).t().contiguous()


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
