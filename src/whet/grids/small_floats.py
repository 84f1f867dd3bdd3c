"""Grids of floats of 8 or 4 bits under a scale: FP8, NVFP4, MXFP4. A weight is `scale * value`, the value a float.

They differ in the float (`books`), in how many weights share a scale, and in the type that scales are stored in:

- FP8 (E4M3 or E5M2): a scale for each row, for the whole tensor, or for each block of 128 x 128;
- NVFP4: E2M1 in groups of 16 with E4M3 scales, all of which are divided by one float32 of the tensor. whet takes a
  power of two for it: every weight is then the same number whether a reader divides by it (compressed-tensors) or
  multiplies by its inverse (vLLM), and exact in bfloat16;
- MXFP4: E2M1 in groups of 32 with powers of two for scales (E8M0, OCP Microscaling formats 1.0);
- fp4: E2M1 in any groups with float16 or bfloat16 scales, fp4m1 with E8M0 ones (ZeroQuant-FP's M1, arXiv 2307.09782;
  in groups of 32 that is MXFP4), fp4m2 with the scale of the row over powers of two (`shifted`).

Scales are rounded to their stored type before codes are chosen. Where that is an 8-bit type they are held as the
float32 of the same value, because torch has few operations on those.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from whet.errors import GateError
from whet.grids.books import Book, BookLevels, book
from whet.grids.grid import Grid, Params
from whet.grids.grouped import GroupedGrid
from whet.grids.inputs import InputGrid
from whet.grids.least_squares import Quadratic, errors, pooled, sums, usable
from whet.grids.packing import pack_halves

# What the scale that puts the largest weight on the largest value is multiplied by. A grid of floats looks alike an
# octave higher.
_FACTORS = (1.0, *(2 ** (k / 8) for k in range(-4, 9) if k))
# How many octaves an FP8 scale may lie above the one that uses the largest value, where a float16 would be subnormal.
_ROOM = {"e4m3": 4, "e5m2": 10, "e2m1": 0}
# E4M3 scales tried on either side of that one, 0.6 to 1.75 times it: the upper ones put the largest weight on 4.
_E4M3 = (0, *(k for k in range(-6, 7) if k))
_E8M0 = (0, 1, -1, 2)  # powers of two likewise; 0 clips what is above 6, as the specification does
# The largest scale of NVFP4 before rounding: 448 is E4M3's end, and the largest group may want a larger one.
_LARGEST = 256.0


@dataclass(frozen=True)
class SmallFloatGrid(GroupedGrid):
    """Where a linear's weights may land. Neighbouring codes are neighbouring values.

    name: the scheme. values: of `books`. group: weights along a row that share a scale, 0 for the whole row. rows: how
    many rows share it too, 0 for all. scale_dtype: stored type of scales; float8_e4m3fn and float8_e8m0fnu belong to
    NVFP4 and MXFP4 or fp4m1. regroups: whether other groups are schemes too (`fp4-g32`). divisor: what NVFP4's scales
    are divided by, 0 until a tensor is known (`suited`). inputs: of whose inputs are rounded too.
    """

    name: str
    values: Literal["e4m3", "e5m2", "e2m1"]
    group: int = 0
    rows: int = 1
    scale_dtype: torch.dtype = field(default=torch.float16, compare=False)
    regroups: bool = field(default=False, compare=False)
    divisor: float = field(default=0.0, compare=False)
    zero: Literal["none"] = field(default="none", init=False)
    inputs: InputGrid | None = None

    @property
    def kind(self) -> str:
        """What targets call it: its name without a group and inputs."""
        return self._weights.partition("-g")[0]

    @property
    def _weights(self) -> str:
        """The name of the weights alone."""
        return self.name.partition("+")[0]

    @property
    def bits(self) -> int:
        """Bits a code."""
        return 4 if self.values == "e2m1" else 8

    @property
    def multiple(self) -> int:
        """What must divide a row: of FP4, two weights are in a byte."""
        return 2 if self.bits == 4 else 1

    @property
    def extent(self) -> tuple[float, float]:
        """How many scales the largest weight is, and how many lie between it and the one farthest from it, or zero."""
        top = self.book().top
        return top, top / 2 ** _ROOM[self.values]

    @property
    def scales(self) -> str:
        """The 8-bit type of the scales, or nothing where they are plain floats."""
        return {torch.float8_e4m3fn: "e4m3", torch.float8_e8m0fnu: "e8m0"}.get(self.scale_dtype, "")

    @property
    def compressed(self) -> dict[str, Any] | None:
        """How compressed-tensors calls it: FP8 of type E4M3, and of FP4 what it has by name."""
        weights: dict[str, Any] = {"num_bits": self.bits, "type": "float", "symmetric": True}
        more = {} if self.inputs is None else {"input_activations": self.inputs.compressed}
        if self.values == "e4m3":
            strategy = {0: "tensor", 1: "channel"}.get(self.rows, "block")
            weights |= {"strategy": strategy, "group_size": None, "dynamic": False}
            weights |= {"block_structure": [self.rows, self.group]} if strategy == "block" else {}
            return {"format": "float-quantized", "weights": weights, **more}
        if self._weights not in _COMPRESSED:
            return None
        form, strategy, stored = _COMPRESSED[self._weights]
        weights |= {"strategy": strategy, "group_size": self.group, "dynamic": False, "scale_dtype": stored}
        return {"format": form, "weights": weights, **more}

    @property
    def uncompressed(self) -> str:
        """Why compressed-tensors has no such grid, if it has none."""
        if self.values == "e5m2":
            return "compressed-tensors has no FP8 of type E5M2"
        return "" if self.compressed else "compressed-tensors has FP4 as NVFP4 and MXFP4 only"

    def book(self, device: torch.device | str = "cpu") -> Book:
        """The values, on `device`."""
        return book(self.values, torch.device(device))

    def nbytes(self, rows: int, columns: int) -> int:
        """Exact bytes of codes and scales of a `[rows, columns]` matrix as `stored_parts` has them."""
        count = math.ceil(rows / (self.rows or rows)) * len(self.groups(columns))
        divisor = 4 if self.scales == "e4m3" else 0
        return rows * math.ceil(columns * self.bits / 8) + count * self.scale_dtype.itemsize + divisor

    def suited(self, w: Tensor) -> SmallFloatGrid:
        """The grid with what all of the tensor `w` shares: NVFP4's divisor."""
        if self.scales != "e4m3" or self.divisor:
            return self
        peak = w.abs().max().item()
        power = math.floor(math.log2(_LARGEST * self.book().top) - math.log2(peak)) if 0 < peak < math.inf else 0
        return dataclasses.replace(self, divisor=2.0 ** min(max(power, -100), 100))

    def regrouped(self, group: int) -> SmallFloatGrid | None:
        """The same with another group where that is a scheme; with powers of two in groups of 32 it is MXFP4."""
        if not self.regroups:
            return None
        if self.scales == "e8m0" and group == MXFP4.group:
            return MXFP4
        return self if group == self.group else dataclasses.replace(self, group=group, name=f"{self.name}-g{group}")

    def with_inputs(self, inputs: InputGrid | None) -> Grid:
        """The grid for linears whose inputs are rounded to `inputs` too."""
        if self.compressed is None:
            return super().with_inputs(inputs)
        name = self._weights if inputs is None else f"{self._weights}+{inputs.name}"
        return dataclasses.replace(self, inputs=inputs, name=name)

    def table_entry(self, decode: str) -> dict[str, Any]:
        """How a linear on it is read: FP4 in float32, where its values times a scale are exact."""
        entry = {"bits": self.bits, "group": self.group, "zero": self.zero}
        entry |= {"decode": decode if self.bits == 8 else "float32", "float": self.values}
        entry |= {"rows": self.rows} if self.rows != 1 else {}
        entry |= {"scales": self.scales} if self.scales else {}
        return entry if self.inputs is None else entry | {"inputs": self.inputs.entry}

    def stored_parts(self, codes: Tensor, params: Params) -> dict[str, Tensor]:
        """The tensors of one linear, as compressed-tensors has them."""
        book, scale = self.book(codes.device), params["scale"]
        raw = book.stored[codes.int()]
        if book.dtype is not None:
            size = self.rows or len(scale)
            kept = scale[::size].contiguous()
            if not torch.equal(kept.repeat_interleave(size, 0)[: len(scale)], scale):
                raise GateError(
                    "{grid}: rows that share a scale have several. This is a defect of whet; report it.", grid=self.name
                )
            return {"weight": raw.view(book.dtype), "weight_scale": kept if self.rows else kept.flatten()}
        if self.scales == "e8m0":  # a power of two is its exponent
            exponents = (scale.contiguous().view(torch.int32) >> 23).to(torch.uint8)
            return {"weight_packed": pack_halves(raw), "weight_scale": exponents}
        if not self.scales:
            return {"weight_packed": pack_halves(raw), "weight_scale": scale.contiguous()}
        divisors = params["divisor"].unique()
        if len(divisors) != 1:
            raise GateError(
                "{grid}: parts of one tensor have several divisors. This is a defect of whet; report it.",
                grid=self.name,
            )
        return {
            "weight_packed": pack_halves(raw),
            "weight_scale": scale.to(self.scale_dtype).contiguous(),
            "weight_global_scale": divisors,
        }

    def read_parts(self, parts: dict[str, Tensor]) -> tuple[Tensor, Params]:
        """Codes and parameters of one linear from its stored tensors."""
        scale, book = parts["weight_scale"], self.book(parts["weight_scale"].device)
        if book.dtype is not None:
            raw = parts["weight"].view(torch.uint8)
            size = self.rows or len(raw)
            scale = scale.reshape(-1, scale.shape[-1] if self.rows else 1).repeat_interleave(size, 0)[: len(raw)]
        else:
            packed = parts["weight_packed"]
            raw = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1)
        if self.scales == "e8m0":
            scale = (scale.int() << 23).view(torch.float32)
        params = {"scale": scale.float() if self.scales == "e4m3" else scale}
        if self.scales == "e4m3":
            params["divisor"] = parts["weight_global_scale"].expand(len(raw), 1).clone()
        order = torch.zeros(256, dtype=torch.uint8, device=raw.device)
        order[book.stored.long()] = torch.arange(len(book.stored), dtype=torch.uint8, device=raw.device)
        return order[raw.long()], params

    # -- values ---------------------------------------------------------------------------------------------------

    def group_params(self, params: Params, index: int) -> Params:
        """Those of group `index`, of `params` that have groups along their first dimension, or the divisor alone."""
        return {k: v[0 if k == "divisor" else index] for k, v in params.items()}

    def bind(self, params: Params) -> BookLevels:
        """The grid's levels under `params`, float32."""
        return BookLevels.of(self.book(params["scale"].device), _scale(params))

    def dequantize(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of `codes`, in the type the target computes in: scales are converted first, then multiplied."""
        return self.book(codes.device).value(codes, dtype) * _scale(params, dtype)

    def zero_value(self, params: Params) -> Tensor:
        """The code whose value is exactly 0 (broadcastable like `params`)."""
        return torch.full_like(params["scale"], self.book().zero, dtype=torch.float32)

    def stored(self, x: Tensor) -> Tensor:
        """Scales as they will be stored: the nearest of their type, and none of them 0 that was not."""
        if self.scales == "e8m0":
            bits = x.float().clamp(2.0**-126, 2.0**126).view(torch.int32)
            return ((bits + (1 << 22)) & (0xFF << 23)).view(torch.float32)
        if self.scales == "e4m3":
            return x.float().clamp(2.0**-9, 448.0).to(self.scale_dtype).float()
        kept = x.to(self.scale_dtype)
        kind = torch.finfo(self.scale_dtype)
        least = torch.full_like(kept, kind.smallest_normal * kind.eps).copysign(kept)
        return torch.where((kept == 0) & (x != 0), least, kept)

    # -- choosing parameters --------------------------------------------------------------------------------------

    def fit(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """Scales that bring nearest rounding of `w [out, in]` closest, in importance-weighted squares.

        importance: `[in]` or `[out, in]`, non-negative; None weighs all columns alike. Returns `scale [out, groups]`
        (equal in rows that share it), for NVFP4 also `divisor [out, 1]`, the same everywhere.
        """
        if (grid := self.suited(w)) is not self:
            return grid.fit(w, importance)
        return super().fit(w, importance) | self.shared(w)

    def shared(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """What all groups share: NVFP4's `divisor [out, 1]`, the same in every row."""
        return {"divisor": w.new_full((len(w), 1), self.suited(w).divisor)} if self.scales == "e4m3" else {}

    def candidates(self, w: Tensor, importance: Tensor | None, keep: int, shared: Params | None = None) -> Params:
        """The `keep` best parameter sets of each row of `w [n, group]` under nearest rounding, best first.

        importance: `[group]`, `[n, group]` or None. Rows that share their scales are one group together. shared: as of
        this group (`shared`). Returns `[keep, n]`, what is shared among it.
        """
        if shared:
            grid = dataclasses.replace(self, divisor=shared["divisor"][0].item())
            found = grid.candidates(w, importance, keep)
            return found | {"divisor": shared["divisor"].expand(found["scale"].shape)}
        if self.rows == 1:
            return super().candidates(w, importance, keep)
        count, size = len(w), self.rows or len(w)
        weight = torch.ones_like(w) if importance is None else importance.expand(w.shape)
        w, weight = (torch.nn.functional.pad(t, (0, 0, 0, -count % size)) for t in (w, weight))
        found = super().candidates(w.reshape(-1, size * w.shape[1]), weight.reshape(-1, size * w.shape[1]), keep)
        return {k: v.repeat_interleave(size, 1)[:, :count] for k, v in found.items()}

    def refit(self, codes: Tensor, gradient: Tensor, h: Tensor, params: Params) -> tuple[Params, Tensor] | None:
        """The best scale `[out]` of one group for its `codes [group, out]`, and by how much it lowers the loss.

        h: second moment of the group's inputs. gradient: h's product with what rounding leaves, all columns counted.
        None where no row gains, nor rows that share their scale together.
        """
        levels = self.bind(params)
        told = Quadratic.of_moments(levels.along(codes.clone()), None, gradient, h)
        step = Quadratic.of_one(pooled(told.slope, self.rows), pooled(told.curve, self.rows)).step()
        new = {"scale": self.stored((levels.scale + step) * params.get("divisor", 1.0))}
        step = _scale(params | new) - levels.scale
        gain = told.gain(step, torch.zeros_like(step))
        better = (pooled(gain, self.rows) > 0) & torch.isfinite(new["scale"]) & (new["scale"] != 0)
        if not better.any():
            return None
        return {"scale": torch.where(better, new["scale"], params["scale"])}, torch.where(better, gain, 0.0).sum()

    def _candidates(self, x: Tensor, weight: Tensor, keep: int) -> Params:
        weight, peak = usable(weight), x.abs().amax(0)
        scales = self._starts(peak)
        if not self.scales:  # the best for the codes that each gives; those of 8 bits are too coarse for it
            best = self.stored(sums(self.bind({"scale": scales}), x, weight).step())
            scales = torch.cat([scales[:1], torch.where((best == 0) | ~best.isfinite(), scales, best)])
        # in units near the largest weight: squares of very small ones would all be 0
        unit = power(peak.frexp().exponent)
        levels = self.bind({"scale": scales.float() / ((self.divisor or 1.0) * unit)})
        losses = errors(levels, x / unit, weight).nan_to_num(torch.inf)
        losses, order = losses.sort(dim=0, stable=True)
        scales = scales.gather(0, order)
        losses[1:].masked_fill_(scales[1:] == scales[:-1], torch.inf)  # one of those that are equal is enough
        order = losses.topk(min(keep, len(losses)), dim=0, largest=False, sorted=True).indices
        return {"scale": scales.gather(0, order)}

    def _starts(self, peak: Tensor) -> Tensor:
        """Scales `[starts, n]` as stored, for groups whose largest weight is `peak [n]`; first the usual one."""
        top = self.book().top
        if self.scales == "e8m0":
            usual = peak.frexp().exponent - 1 - int(math.log2(top))
            powers = usual + torch.tensor(_E8M0, dtype=torch.int32, device=peak.device)[:, None]
            return power(powers)
        usual = peak / top * (self.divisor or 1.0)
        if self.scales == "e4m3":
            e4m3 = book("e4m3", peak.device)
            places = e4m3.codes(self.stored(usual)) + torch.tensor(_E4M3, device=peak.device)[:, None]
            return e4m3.value(places.clamp(e4m3.zero + 1, len(e4m3.values) - 1))
        normal = torch.finfo(self.scale_dtype).smallest_normal
        raised = torch.maximum(usual, (usual * 2 ** _ROOM[self.values]).clamp_max(normal))
        factors = torch.tensor(_FACTORS, device=peak.device)
        return self.stored(torch.cat([usual[None], raised * factors[:, None]]))


NVFP4 = SmallFloatGrid("NVFP4", "e2m1", group=16, scale_dtype=torch.float8_e4m3fn)
MXFP4 = SmallFloatGrid("MXFP4", "e2m1", group=32, scale_dtype=torch.float8_e8m0fnu)
# What compressed-tensors calls the format, the strategy and the type of scales of those that it has.
_COMPRESSED = {
    "NVFP4": ("nvfp4-pack-quantized", "tensor_group", "torch.float8_e4m3fn"),
    "MXFP4": ("mxfp4-pack-quantized", "group", "torch.uint8"),
}


def _scale(params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
    """What values are multiplied by. NVFP4's quotient is exact, whatever the type."""
    if "divisor" in params:
        return (params["scale"].float() / params["divisor"]).to(dtype)
    return params["scale"].to(dtype)


def power(exponent: Tensor) -> Tensor:
    """2 to the `exponent` int32, as far as that is a normal float32; exact."""
    return ((exponent.clamp(-126, 126) + 127) << 23).view(torch.float32)
