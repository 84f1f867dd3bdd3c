"""Codes and parameters of an artifact as the bytes of ggml's block types; nothing is rounded here.

A block is 32 weights of a row, in the types of two levels 256. Codes of more than one block of bytes lie in planes: a
byte holds the same place of several runs of weights, the lowest bits of the first run (`_planes`).

One level: a float16 scale d, in the types that end in 1 a float16 minimum m, then the codes, of which the fifth bit of
5-bit ones lies in a little-endian word of 32 before them. Q8_0 stores its codes signed, as differences from 128. Two
levels: where the float16 numbers, the whole numbers and the planes lie differs from type to type (`_NESTED`). Ternary:
TQ2_0 has its codes in planes of two bits, TQ1_0 as digits to base 3 (`_digits`), the scale after them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from whet.errors import UsageError
from whet.grids import BLOCKS

# weights of a block, bytes of it
BLOCK_BYTES = {
    **{"Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34)},
    **{"Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210)},
    **{"IQ4_NL": (32, 18), "IQ4_XS": (256, 136), "TQ1_0": (256, 54), "TQ2_0": (256, 66)},
}
FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
FLOAT_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def block_type(entry: Mapping[str, Any]) -> str | None:
    """The block type that holds a linear with this table entry (`Grid.table_entry`) as it is, or None."""
    for name, grid in BLOCKS.items():
        wanted = grid.table_entry("float32")
        if all(entry.get(key) == wanted.get(key) for key in _TOLD):
            return name
    return None


def row_bytes(kind: str, columns: int) -> int:
    """Bytes of a row of `columns` weights. Raises ValueError where the blocks do not divide it."""
    if kind in FLOAT_BYTES:
        return FLOAT_BYTES[kind] * columns
    size, nbytes = BLOCK_BYTES[kind]
    if columns % size:
        raise ValueError(f"{kind} holds rows that divide by {size}, not {columns}")
    return columns // size * nbytes


def blocks(codes: Tensor, params: Mapping[str, Tensor], kind: str, address: str) -> Tensor:
    """The rows of a quantized linear, uint8 `[out, bytes]`, from codes uint8 `[out, in]` and the grid's params.

    Raises UsageError that names `address` where a scale or minimum is not a float16 already.
    """
    rows = len(codes)
    grouped = codes.reshape(rows, -1, BLOCK_BYTES[kind][0])
    scale = _halves(params["scale"], address, kind)
    offset = [_halves(params["offset"], address, kind)] if "offset" in params else []
    if kind in _NESTED:
        numbers = [
            params[name].reshape(*grouped.shape[:2], -1) for name in ("part_scale", "part_offset") if name in params
        ]
        parts = _NESTED[kind](grouped, torch.cat([scale, *offset], dim=2), *numbers)
    elif kind == "TQ2_0":
        parts = [_planes(grouped, 2), scale]
    elif kind == "TQ1_0":
        runs = grouped.split([160, 80, 16], dim=2)
        parts = [*(_digits(codes, run) for codes, run in zip(runs, (32, 16, 4), strict=True)), scale]
    elif kind == "Q8_0":
        parts = [scale, grouped ^ 128]
    else:
        high = [_planes(grouped >> 4, 1, 1)] if kind.startswith("Q5") else []
        parts = [scale, *offset, *high, _planes(grouped & 15, 4, 16)]
    return torch.cat(parts, dim=2).reshape(rows, -1)


def float_rows(values: Tensor, kind: str, address: str) -> Tensor:
    """Values `[..., in]` as the bytes of a plain type, uint8 `[..., bytes]`; refuses what the type cannot hold."""
    dtype = next(dtype for dtype, name in FLOAT_TYPES.items() if name == kind)
    stored = values.to(dtype)
    if not torch.isfinite(stored).all():
        raise UsageError(
            "{address} has weights that exceed what {type} holds. Use --type bf16.", address=address, type=kind
        )
    return stored.contiguous().view(torch.uint8).reshape(*values.shape[:-1], -1)


# What of a table entry tells one block type from another.
_TOLD = ("bits", "group", "zero", "part", "part_bits", "values", "in_byte", "float", "form")


def _planes(codes: Tensor, bits: int, run: int = 32) -> Tensor:
    """Codes `[out, blocks, n]` of 1, 2 or 4 bits as bytes `[out, blocks, n * bits / 8]`.

    Byte i of a stretch of `run` bytes holds the i-th of 8 / bits runs one after another, the first in its lowest bits.
    """
    runs = codes.reshape(*codes.shape[:2], -1, 8 // bits, run)
    shift = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)[:, None]
    return (runs << shift).sum(-2, dtype=torch.uint8).flatten(2)


def _digits(codes: Tensor, run: int) -> Tensor:
    """Codes `[out, blocks, n]` below 3 as bytes `[out, blocks, run]`: a byte holds the same place of up to five runs.

    They are the digits of a fraction to base 3, the first run's behind the point, of which the byte is 256 times,
    rounded up: a digit is what goes over 256 when the byte is multiplied by 3 as often as its place says.
    """
    runs = codes.reshape(*codes.shape[:2], -1, run).int()
    powers = 3 ** torch.arange(4, 4 - runs.shape[2], -1, dtype=torch.int32, device=codes.device)
    return ((runs * powers[:, None]).sum(2) * 256).add_(242).div_(243, rounding_mode="floor").to(torch.uint8)


def _q2_k(codes: Tensor, halves: Tensor, scale: Tensor, offset: Tensor) -> list[Tensor]:
    return [scale | offset << 4, _planes(codes, 2), halves]


def _q3_k(codes: Tensor, halves: Tensor, scale: Tensor) -> list[Tensor]:
    # sixteen scales of 6 bits: four low bits of the i-th and of the one eight later, then two high ones of four
    numbers = [_planes(scale & 15, 4, 8), _planes(scale >> 4, 2, 4)]
    return [_planes(codes >> 2, 1), _planes(codes & 3, 2), *numbers, halves]


def _q4_k(codes: Tensor, halves: Tensor, scale: Tensor, offset: Tensor) -> list[Tensor]:
    return [halves, _six_bits(scale, offset), _planes(codes, 4)]


def _q5_k(codes: Tensor, halves: Tensor, scale: Tensor, offset: Tensor) -> list[Tensor]:
    return [halves, _six_bits(scale, offset), _planes(codes >> 4, 1), _planes(codes & 15, 4)]


def _q6_k(codes: Tensor, halves: Tensor, scale: Tensor) -> list[Tensor]:
    return [_planes(codes & 15, 4, 64), _planes(codes >> 4, 2), scale ^ 128, halves]


def _iq4_xs(codes: Tensor, halves: Tensor, scale: Tensor) -> list[Tensor]:
    return [halves, _planes(scale >> 4, 2, 1), _planes(scale & 15, 4, 1), _planes(codes, 4, 16)]


def _six_bits(scale: Tensor, offset: Tensor) -> Tensor:
    """Eight scales and eight offsets of 6 bits in twelve bytes.

    The first four of each fill 6 bits of a byte, whose highest two are the highest of the later four; the other bits of
    these, a scale's below an offset's, make the last four bytes.
    """
    first = [number[..., :4] | (number[..., 4:] >> 4) << 6 for number in (scale, offset)]
    return torch.cat([*first, scale[..., 4:] & 15 | (offset[..., 4:] & 15) << 4], dim=2)


_NESTED: dict[str, Callable[..., list[Tensor]]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_XS": _iq4_xs,
}


def _halves(values: Tensor, address: str, kind: str) -> Tensor:
    """Parameters as the two bytes of a float16, `[out, blocks, 2]`; refuses to round them."""
    stored = values.to(torch.float16)
    if not torch.equal(stored.float(), values.float()):
        raise UsageError(
            "{address}: its scales are stored as {type} and are no float16 numbers, which {block} needs; rounding "
            "them would change the weights that were judged. Compress again with --for llama.cpp, which solves on "
            "float16 scales.",
            address=address,
            type=str(values.dtype).removeprefix("torch."),
            block=kind,
        )
    return stored.contiguous().view(torch.uint8).reshape(*values.shape, 2)
