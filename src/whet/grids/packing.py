"""Codes into what files store: the bit stream of compressed-tensors (0.18 and later), digits to base 3, halves."""

from __future__ import annotations

import torch
from torch import Tensor

from whet.checkpoint.codes_whet import digit_places, unpack
from whet.checkpoint.codes_whet import pack as pack


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
