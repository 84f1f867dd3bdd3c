"""Matrices that stay packed in memory: codes go through PyTorch's own kernels, or are decoded when used.

Copied into folders beside `modeling_whet.py`, with `packing_whet.py`, which puts these matrices into a model. Three
ways lead from codes to a product:

- `Int4`: the int4 kernel, inputs in bfloat16, w = (q - 8) * s + m with s and m of 32 to 256 columns in bfloat16. Codes
  of 5 to 8 bits are two such matrices, the upper and the lower half of every code, side by side, and meet the input
  twice; so are tables of whole numbers (IQ4_NL, FP4). What else a grid has is exact: scales are repeated for smaller
  groups, rows and columns are padded.
- `Int8`: the int8 kernel, one scale a row, for rows of 5 to 8 bits on a processor.
- `AtUse`: no kernel takes it; some rows at a time are decoded and multiplied, and forgotten. Slow, and small.

On one core of a processor with AVX-512 a [2048, 768] matrix meets one input in 83 µs on the int4 and on the int8
kernel, in 166 µs as two halves, and in 130 µs in bfloat16; with 128 inputs the int4 kernel takes 2.4 times bfloat16's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .codes_whet import codes_of, unpack
from .modeling_whet import E2M1, decode, float_scales, form_of, halves_of, points_of, scales_of

GROUPS = (256, 128, 64, 32)  # columns with one scale that the int4 kernel takes
_AT_ONCE = 1 << 18  # weights unpacked or decoded at a time
_BLOCK = 64  # rows that the kernel's layout keeps together, at most
Parts = dict[str, Tensor]


def _codes_in(parts: Parts) -> Tensor:
    return parts["weight" if "weight" in parts else "weight_packed"]


def opened(parts: Parts, entry: dict) -> tuple[Parts, dict]:
    """`parts` and table `entry` of a linear such that each row can be taken by itself: what is packed along rows
    becomes uint8 `[rows, groups]`, and scales of several rows are repeated."""
    rows = len(_codes_in(parts))
    made = {name: value for name, value in parts.items() if name != "weight_shape"}
    along = {"weight_zero_point": entry["bits"], "weight_parts": entry.get("part_bits") or entry.get("shift_bits")}
    for name, bits in along.items():
        if name in made:
            made[name] = unpack(made[name].t().contiguous(), bits, rows).t().contiguous()
    share = entry.get("rows", 1) if "float" in entry else 1
    if share > 1:
        made["weight_scale"] = made["weight_scale"].repeat_interleave(share, 0)[:rows]
        entry = {**entry, "rows": 1}
    if "weight_shape" in parts:
        made["columns"] = parts["weight_shape"][1:]
    return made, entry


def picked(parts: Parts, index: Tensor | slice) -> Parts:
    """Those of the rows `index`, of parts that are `opened`."""
    rows = len(_codes_in(parts))
    whole = {"columns", "weight_global_scale"}
    made = {n: v if n in whole or (len(v) == 1 and rows > 1) else v[index] for n, v in parts.items()}
    if "columns" in made:
        count = torch.tensor([len(made["weight_packed"])])
        made["weight_shape"] = torch.cat((count, made.pop("columns").cpu()))
    return made


def level_codes(parts: Parts, entry: dict) -> tuple[Tensor, Tensor, Tensor | None]:
    """Whole numbers int16 `[rows, columns]`, scales `[rows, groups]` as bfloat16 has them, and what is added
    `[rows, groups]` (None: nothing), so that a weight is number * scale + that."""
    if "float" in entry:
        numbers = (2 * torch.tensor(E2M1)).to(parts["weight_packed"].device, torch.int16)
        levels = numbers[halves_of(parts["weight_packed"])]
        scale = float_scales(parts, entry, torch.float32, len(levels)).expand(len(levels), -1)
        return levels, (scale / 2).bfloat16().float(), None
    codes = codes_of(parts["weight_packed"], entry, int(parts["weight_shape"][1]))
    exact, offset, _ = scales_of(parts, entry, torch.float32)
    scale = exact.bfloat16().float()
    if "values" in entry:
        return torch.tensor(entry["values"], device=codes.device).to(torch.int16)[codes.long()], scale, None
    half = 2 ** (entry["bits"] - 1)
    levels = codes.to(torch.int16) - half
    if offset is not None:
        return levels, scale, offset + half * exact
    # of the scale as the kernel has it, so that a weight of 0 stays one
    return levels, scale, (half - points_of(parts, entry).float()) * scale if entry["zero"] == "int" else None


@dataclass(frozen=True)
class Fit:
    """How a linear goes through a kernel. halves: of a code (1 or 2) for the int4 kernel. group: columns that share a
    scale there, and stored: as they are stored. whole: its rows have one scale each and whole numbers of 8 bits, as the
    int8 kernel has them."""

    halves: int
    group: int
    stored: int
    whole: bool


def fit_of(entry: dict, columns: int) -> Fit | str:
    """How a linear with this table `entry` fits a kernel, or why it does not: `floats` (8-bit floats), `values` (a
    table of other than whole numbers), `group` (scales of other columns than multiples of 32), `form`."""
    form = form_of(entry)
    if form == "codes" and "values" in entry:
        low, high = min(entry["values"]), max(entry["values"])
        if any(value != int(value) for value in entry["values"]) or low < -128 or high > 127:
            return "values"
        halves = 1 if low >= -8 and high <= 7 else 2
    elif form == "codes":
        if entry["bits"] > 8:
            return "values"
        halves = 1 if entry["bits"] <= 4 else 2
    elif form == "float":
        if entry["float"] != "e2m1":
            return "floats"
        halves = 2  # twice their values are whole numbers from -12 to 12
    else:
        return "form"
    stored = entry.get("part") or entry["group"] or columns
    whole = form == "codes" and halves == 2 and stored >= columns
    if stored >= columns:
        group = min(GROUPS, key=lambda size: (-(-columns // size) * size, -size))
    else:
        group = next((size for size in GROUPS if stored % size == 0), 0)
    return Fit(halves, group, stored, whole) if group else "group"


class Int4:
    """A matrix `[rows, columns]` in the int4 kernel's layout."""

    kernel = "int4"

    def __init__(self, parts: Parts, entry: dict, fit: Fit, rows: int, columns: int) -> None:
        device = parts["weight_packed"].device
        cuda = device.type == "cuda"
        self.rows, self.columns, self.group, self.halves = rows, columns, fit.group, fit.halves
        multiple = max(fit.group, 128) if cuda else fit.group
        self.padded = -(-columns // multiple) * multiple
        wide, high = self.padded * fit.halves, -(-rows // 16) * 16
        step = max(_BLOCK, _AT_ONCE // wide // _BLOCK * _BLOCK)
        first = torch.arange(0, self.padded, fit.group, device=device) // fit.stored
        self.device = device
        self.scales = torch.zeros(wide // fit.group, high, 2, dtype=torch.bfloat16, device=device)
        for start in range(0, high, step):
            end = min(start + step, high)
            codes, scale, rest = level_codes(picked(parts, slice(start, end)), entry)
            own = first.clamp_max(scale.shape[1] - 1)
            scale, rest = scale[:, own].t(), None if rest is None else rest[:, own].t()
            padding = (0, self.padded - columns, 0, end - start - len(codes))
            made = _laid_out(_nibbles(functional.pad(codes, padding), fit.halves), cuda)
            unit = (end - start) // len(made)  # rows in one of the layout
            if not start:
                self.layout = made.new_empty(high // unit, *made.shape[1:])
            self.layout[start // unit : end // unit] = made
            self.scales[:, start : start + len(codes)] = _pairs(scale, rest, fit.halves)

    @property
    def nbytes(self) -> int:
        return self.layout.nbytes + self.scales.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        if self.padded != self.columns:
            x = functional.pad(x, (0, self.padded - self.columns))
        if self.halves == 2:
            x = torch.cat((x, x), dim=-1)
        if x.is_cuda:
            y = torch._weight_int4pack_mm(x.contiguous(), self.layout, self.group, self.scales)
        else:
            y = torch._weight_int4pack_mm_for_cpu(x.contiguous(), self.layout, self.group, self.scales)
        return y if y.shape[1] == self.rows else y[:, : self.rows]


def _nibbles(levels: Tensor, halves: int) -> Tensor:
    """Codes 0 to 15 int32 of whole numbers int16 `levels [rows, columns]`: themselves and 8 more, or the upper halves
    (8 more) beside the lower ones."""
    levels = levels.int()
    return levels + 8 if halves == 1 else torch.cat(((levels >> 4) + 8, levels & 15), dim=1)


def _pairs(scale: Tensor, rest: Tensor | None, halves: int) -> Tensor:
    """Scales and offsets `[halves * groups, rows, 2]` of scales and what is left `[groups, rows]`."""
    scale = scale.bfloat16().float()
    rest = torch.zeros_like(scale) if rest is None else rest
    if halves == 1:
        return torch.stack((scale, rest), dim=-1).bfloat16()
    upper = torch.stack((16 * scale, torch.zeros_like(scale)), dim=-1)
    return torch.cat((upper, torch.stack((scale, 8 * scale + rest), dim=-1))).bfloat16()


def _laid_out(codes: Tensor, cuda: bool) -> Tensor:
    """Codes 0 to 15 int32 `[rows, columns]` in the kernel's layout."""
    if not cuda:
        return torch._convert_weight_to_int4pack_for_cpu(codes.contiguous(), 1)
    codes = codes.to(torch.uint8)
    return torch._convert_weight_to_int4pack((codes[:, ::2] << 4 | codes[:, 1::2]).contiguous(), 8)


class Int8:
    """A matrix `[rows, columns]` of whole numbers with one scale a row."""

    kernel = "int8"

    def __init__(self, parts: Parts, entry: dict, rows: int, columns: int) -> None:
        self.rows, self.columns, self.device = rows, columns, parts["weight_packed"].device
        # the kernel of PyTorch 2.13 reads past the end of rows that are no multiple of 16, unasked
        self.levels = torch.zeros(rows, -(-columns // 32) * 32, dtype=torch.int8, device=self.device)
        self.scale = torch.empty(rows, dtype=torch.bfloat16, device=self.device)
        self.rest: Tensor | None = None
        step = max(1, _AT_ONCE // columns)
        for start in range(0, rows, step):
            here = slice(start, start + step)
            codes, scale, rest = level_codes(picked(parts, here), entry)
            self.levels[here, :columns], self.scale[here] = codes.to(torch.int8), scale[:, 0].bfloat16()
            if rest is not None:
                self.rest = torch.zeros_like(self.scale) if self.rest is None else self.rest
                self.rest[here] = rest[:, 0].bfloat16()

    @property
    def nbytes(self) -> int:
        return self.levels.nbytes + self.scale.nbytes + (0 if self.rest is None else self.rest.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        if self.columns != self.levels.shape[1]:
            x = functional.pad(x, (0, self.levels.shape[1] - self.columns))
        y = torch._weight_int8pack_mm(x.contiguous(), self.levels, self.scale)
        return y if self.rest is None else y + x.float().sum(-1, keepdim=True).to(x.dtype) * self.rest


class AtUse:
    """A matrix that is decoded, some rows at a time, whenever it is used."""

    kernel = "at use"

    def __init__(self, parts: Parts, entry: dict, dtype: torch.dtype) -> None:
        codes = _codes_in(parts)
        self.parts, self.entry, self.dtype, self.rows, self.device = parts, entry, dtype, len(codes), codes.device
        double = 1 if "weight" in parts else 2  # values in a byte
        self.columns = int(parts["columns"]) if "columns" in parts else codes.shape[1] * double
        self.step = max(1, _AT_ONCE // self.columns)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())

    def own(self) -> AtUse:
        """Itself, in memory of its own, once it is to be kept."""
        self.parts = {name: part.clone() for name, part in self.parts.items()}
        return self

    def at(self, index: Tensor | slice) -> Tensor:
        """The rows `index`, decoded."""
        return decode(picked(self.parts, index), self.entry, self.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        starts = range(0, self.rows, self.step)
        return torch.cat([functional.linear(x, self.at(slice(i, i + self.step)).to(x.dtype)) for i in starts], dim=-1)


class Dense:
    """A matrix that is what it was: a part of a packed one."""

    kernel = "decoded"

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.rows, self.nbytes, self.device = weight, len(weight), weight.nbytes, weight.device

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.to(x.dtype))


Piece = Int4 | Int8 | AtUse | Dense


@functools.cache
def kernels(device: str) -> frozenset[str]:
    """Which of PyTorch's kernels there are on a device, and give there what codes stand for: each is tried."""
    made: set[str] = set()
    words = torch.randint(-(2**31), 2**31, (32, 32), generator=torch.Generator().manual_seed(0)).int()
    for name, bits, group in (("int4", 4, 128), ("int8", 8, 0)):
        entry: dict = {"bits": bits, "group": group, "zero": "none", "decode": "float32"}
        columns = 1024 // bits
        scale = torch.linspace(0.5, 2, 32 * columns // 128).view(32, -1).bfloat16()
        parts = {"weight_packed": words, "weight_shape": torch.tensor([32, columns]), "weight_scale": scale}
        wanted = decode(parts, entry, torch.float32)
        x = torch.linspace(-1, 1, 2 * columns).view(2, -1).bfloat16()
        ready, entry = opened({key: part.to(device) for key, part in parts.items()}, entry)
        try:
            fit = fit_of(entry, columns)
            assert isinstance(fit, Fit)
            piece = Int8(ready, entry, 32, columns) if fit.whole else Int4(ready, entry, fit, 32, columns)
            got = piece(x.to(device)).float().cpu()
        except (RuntimeError, AttributeError):  # not built for this processor, or not in this PyTorch
            continue
        if torch.allclose(got, x.float() @ wanted.t(), rtol=0.02, atol=0.02 * float(wanted.abs().max())):
            made.add(name)
    return frozenset(made)
