"""Codes and parameters of an artifact as the bytes of ggml's block types; nothing is rounded here.

A block is 32 weights of a row: a float16 scale d, in the types that end in 1 a float16 minimum m, then the codes. Of
two 4-bit codes in a byte the lower is of the first half of the block, the higher of the second. A 5-bit code has its
fifth bit in a little-endian word of 32 before them. Q8_0 stores its codes signed, as differences from 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from whet.errors import UsageError
from whet.grids import BLOCKS, IntegerGrid, parse_scheme

BLOCK = 32
# bytes of a block of 32 weights, of a plain number
BLOCK_BYTES = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34}
FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
FLOAT_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def block_type(entry: Mapping[str, Any]) -> str | None:
    """The block type that holds a linear with this table entry (`bits`, `group`, `zero`) as it is, or None."""
    grid = IntegerGrid(entry["bits"], entry["group"], entry["zero"])
    return next((name for name in BLOCKS if parse_scheme(name) == grid), None)


def row_bytes(kind: str, columns: int) -> int:
    """Bytes of a row of `columns` weights. Raises ValueError where the blocks do not divide it."""
    if kind in FLOAT_BYTES:
        return FLOAT_BYTES[kind] * columns
    if columns % BLOCK:
        raise ValueError(f"{kind} holds rows that divide by {BLOCK}, not {columns}")
    return columns // BLOCK * BLOCK_BYTES[kind]


def blocks(codes: Tensor, params: Mapping[str, Tensor], kind: str, address: str) -> Tensor:
    """The rows of a quantized linear, uint8 `[out, bytes]`, from codes uint8 `[out, in]` and `[out, in / 32]` params.

    Raises UsageError that names `address` where a scale or minimum is not a float16 already.
    """
    rows = len(codes)
    grouped = codes.reshape(rows, -1, BLOCK)
    parts = [_halves(params["scale"], address, kind)]
    if kind.endswith("_1"):
        parts.append(_halves(params["offset"], address, kind))
    if kind == "Q8_0":
        parts.append(grouped ^ 128)
        return torch.cat(parts, dim=2).reshape(rows, -1)
    if kind.startswith("Q5"):
        place = 2 ** torch.arange(8, dtype=torch.uint8)
        high = ((grouped >> 4).reshape(rows, -1, BLOCK // 8, 8) * place).sum(-1, dtype=torch.uint8)
        parts.append(high)
    low = grouped & 15
    parts.append(low[..., : BLOCK // 2] | low[..., BLOCK // 2 :] << 4)
    return torch.cat(parts, dim=2).reshape(rows, -1)


def float_rows(values: Tensor, kind: str, address: str) -> Tensor:
    """Values `[..., in]` as the bytes of a plain type, uint8 `[..., bytes]`; refuses what the type cannot hold."""
    dtype = next(dtype for dtype, name in FLOAT_TYPES.items() if name == kind)
    stored = values.to(dtype)
    if not torch.isfinite(stored).all():
        raise UsageError(f"{address} has weights that exceed what {kind} holds. Use --type bf16.")
    return stored.contiguous().view(torch.uint8).reshape(*values.shape[:-1], -1)


def _halves(values: Tensor, address: str, kind: str) -> Tensor:
    """Parameters as the two bytes of a float16, `[out, groups, 2]`; refuses to round them."""
    stored = values.to(torch.float16)
    if not torch.equal(stored.float(), values.float()):
        raise UsageError(
            f"{address}: its scales are stored as {str(values.dtype).removeprefix('torch.')} and are no float16 "
            f"numbers, which {kind} needs; rounding them would change the weights that were judged. Compress again "
            "with --for llama.cpp, which solves on float16 scales."
        )
    return stored.contiguous().view(torch.uint8).reshape(*values.shape, 2)
