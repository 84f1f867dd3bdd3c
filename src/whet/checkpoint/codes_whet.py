"""Codes as files hold them: dense bit streams, digits to base 3, and several precisions of one linear, one on another.

Copied into folders beside `modeling_whet.py`, whose words these are. A linear of several precisions (`"form":
"nested"`) is stored for `name` as:

- the coarsest of its codes as any codes are: `name.weight_packed`, `name.weight_scale`, `name.weight_shape`, and their
  zeros;
- each finer one's own `name.weight_scale_b` and `name.weight_zero_point_b` or `name.weight_offset_b`, b its bits;
- `name.weight_more_b` uint8 `[bytes]`: what is to be added, modulo 2^b, to the codes next to the values of the coarser
  one, row after row a byte each, coded by the Huffman codes of zlib (RFC 1950, without repeated strings).

A finer code lies near the coarser value, but not always in its cell: a solver that makes up for the errors of other
columns moves weights past the border of a cell. So the finer one is not cut off to fit: what is stored is the
difference, which takes some 5 bits instead of 8, and every precision is the one that was solved.

Next to a coarser value v lies `round(v / scale) + zero` or `round((v - offset) / scale)`, inside the grid, v and it
computed in float32, each operation by itself and on the processor: IEEE 754 gives the same everywhere.
"""

from __future__ import annotations

import sys
import zlib

import torch
from torch import Tensor

NESTED = "nested"  # the form of a linear of several precisions, as its table entry names it
# Codes packed at a time: the working copy takes eight bytes a code.
_AT_ONCE = 1 << 22


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """Codes uint8 `[rows, columns]` from their bit stream, int32 `[rows, ceil(columns * bits / 32)]`."""
    rows = words.shape[0]
    if bits in (2, 4, 8) and sys.byteorder == "little":
        # contiguous() leaves the strides of a single column as they are, and view looks at them
        octets = words.contiguous().as_strided(words.shape, (words.shape[1], 1)).view(torch.uint8)
        shifts = [octets >> shift & 2**bits - 1 for shift in range(0, 8, bits)] if bits < 8 else [octets]
        return torch.stack(shifts, dim=-1).flatten(1)[:, :columns]
    step = max(1, (1 << 22) // max(columns, 1))  # the working copy takes eight bytes a code
    if rows > step:
        return torch.cat([unpack(words[i : i + step], bits, columns) for i in range(0, rows, step)])
    count = -(-columns // 32)
    padded = torch.zeros(rows, count * bits, dtype=torch.int64, device=words.device)
    padded[:, : words.shape[1]] = words.to(torch.int64) & 0xFFFFFFFF
    padded = padded.view(rows, count, bits)
    codes = torch.empty(rows, count, 32, dtype=torch.uint8, device=words.device)
    for i in range(32):
        word, shift = divmod(i * bits, 32)
        value = padded[:, :, word] >> shift
        if shift + bits > 32:
            value = value | (padded[:, :, word + 1] << (32 - shift))
        codes[:, :, i] = (value & (2**bits - 1)).to(torch.uint8)
    return codes.view(rows, count * 32)[:, :columns]


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes uint8 `[rows, columns]` below 2^bits as int32 `[rows, ceil(columns * bits / 32)]`, little-endian, dense.

    Byte for byte what `compressed_tensors.pack_to_int32` writes since 0.18; before, 3, 5, 6 and 7 bits lay differently.
    """
    rows, columns = codes.shape
    step = max(1, _AT_ONCE // max(columns, 1))
    if rows > step:
        return torch.cat([pack(codes[i : i + step], bits) for i in range(0, rows, step)])
    count = -(-columns // 32)
    if bits in (2, 4, 8) and sys.byteorder == "little":
        share = 8 // bits
        octets = torch.nn.functional.pad(codes, (0, -(-columns * bits // 32) * 32 // bits - columns))
        octets = octets.reshape(rows, -1, share) << torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
        return octets.sum(-1, dtype=torch.uint8).view(torch.int32)
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


def digit_places(columns: int, group: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The byte of a row in which each column's digit is, and the power of 3 there, where five digits make a byte."""
    column = torch.arange(columns, device=device)
    inside = column % group
    return column // group * -(-group // 5) + inside // 5, inside % 5


def codes_of(packed: Tensor, entry: dict, columns: int) -> Tensor:
    """Codes uint8 `[rows, columns]` from `weight_packed` of a linear with this table `entry`."""
    if "in_byte" not in entry:
        return unpack(packed, entry["bits"], columns)
    place, digit = digit_places(columns, entry["group"], packed.device)
    powers = torch.tensor([1, 3, 9, 27, 81], dtype=torch.uint8, device=packed.device)
    return packed[:, place].div_(powers[digit], rounding_mode="floor").remainder_(3)


def entry_at(entry: dict, precision: int) -> dict:
    """The table `entry` of a linear, read at this one of its precisions, where it has several."""
    return {**entry, "precision": precision} if entry.get("form") == NESTED else entry


def levels_of(entry: dict) -> dict[int, dict]:
    """The table entries of a linear of several precisions, by bits, the finest first, each as of those codes alone."""
    first = {key: value for key, value in entry.items() if key not in ("form", "under", "precision")}
    return {one["bits"]: one for one in (first, *entry["under"])}


def nested_parts(entry: dict) -> set[str]:
    """What a linear of several precisions is stored as."""
    *finer, coarsest = levels_of(entry).values()
    more = {f"{name}_{one['bits']}" for one in finer for name in ("weight_more", *_params(one))}
    return {"weight_packed", "weight_shape", *_params(coarsest)} | more


def level_parts(parts: dict[str, Tensor], entry: dict) -> tuple[dict[str, Tensor], dict]:
    """The parts and the table entry of a linear of several precisions as of one alone: that which the entry names, else
    the finest. Raises ValueError for codes that are damaged."""
    every = levels_of(entry)
    coarsest, wanted = min(every), entry.get("precision", entry["bits"])
    own = {bits: {n: parts[n if bits == coarsest else f"{n}_{bits}"] for n in _params(every[bits])} for bits in every}
    shape = parts["weight_shape"]
    if wanted == coarsest:
        return {"weight_packed": parts["weight_packed"], **own[wanted], "weight_shape": shape}, every[wanted]
    rows, columns = (int(n) for n in shape)
    codes = unpack(parts["weight_packed"].cpu(), coarsest, columns)
    coarser = coarsest
    for bits in sorted(every)[1:]:
        near = nearest(codes, own[coarser], every[coarser], own[bits], every[bits])
        codes = (near + _inflated(parts[f"weight_more_{bits}"], rows, columns)).bitwise_and_(2**bits - 1)
        coarser = bits
        if bits == wanted:
            break
    packed = pack(codes, wanted).to(parts["weight_packed"].device)
    return {"weight_packed": packed, **own[wanted], "weight_shape": shape}, every[wanted]


def nearest(codes: Tensor, params: dict[str, Tensor], entry: dict, finer: dict[str, Tensor], above: dict) -> Tensor:
    """The codes uint8 of a finer grid next to the values of `codes` uint8 `[rows, columns]`.

    params, entry: what is stored beside the codes, and their table entry; finer, above: the same of the finer grid.
    """
    rows, columns = codes.shape
    column = torch.arange(columns)

    def spread(numbers: dict[str, Tensor], said: dict) -> tuple[Tensor, Tensor]:
        index = column // (said["group"] or columns)
        if said["zero"] == "int":
            zero = unpack(numbers["weight_zero_point"].cpu().t().contiguous(), said["bits"], rows).t().float()
        elif said["zero"] == "real":
            zero = numbers["weight_offset"].cpu().float()
        else:
            zero = torch.full((rows, 1), 2.0 ** (said["bits"] - 1)).expand(rows, int(index[-1]) + 1)
        return numbers["weight_scale"].cpu().float()[:, index], zero[:, index]

    scale, zero = spread(params, entry)
    value = codes.float() * scale + zero if entry["zero"] == "real" else (codes.float() - zero) * scale
    scale, zero = spread(finer, above)
    value = (value - zero if above["zero"] == "real" else value) / scale
    found = value.nan_to_num(0.0).round()
    return (found if above["zero"] == "real" else found + zero).clamp(0, 2 ** above["bits"] - 1).to(torch.uint8)


def deflated(more: Tensor) -> Tensor:
    """`weight_more` uint8 `[bytes]` of what is to be added, uint8 `[rows, columns]`."""
    coder = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    made = bytearray(coder.compress(more.contiguous().numpy().tobytes()) + coder.flush())
    return torch.frombuffer(made, dtype=torch.uint8)


def _inflated(stored: Tensor, rows: int, columns: int) -> Tensor:
    reader = zlib.decompressobj()
    try:
        made = bytearray(reader.decompress(stored.cpu().numpy().tobytes(), rows * columns + 1))
    except zlib.error as error:
        raise ValueError(f"codes of a finer precision are damaged: {error}") from error
    if len(made) != rows * columns or not reader.eof:
        raise ValueError("codes of a finer precision are damaged: they are of another length")
    return torch.frombuffer(made, dtype=torch.uint8).view(rows, columns)


def _params(entry: dict) -> set[str]:
    return {"weight_scale"} | {"none": set(), "int": {"weight_zero_point"}, "real": {"weight_offset"}}[entry["zero"]]
