"""Integer grids of 2 to 8 bits: symmetric with a signed scale, with an integer zero, with a real zero.

The value of a code `c` in a group with scale `s` is

- `none`  (symmetric):    `s * (c - 2^(b-1))`; `s` may be negative, so that whichever end of the group is farther from
  zero lies exactly on the code that has no mirror image (llama.cpp's Q4_0 and Q3_K do the same);
- `int`   (integer zero): `s * (c - z)`, `z` an integer code, so that zero is always a value of the grid;
- `real`  (real zero):    `s * c + m`, `m` stored like the scale.

Codes are unsigned, `0 <= c < 2^b`. Scales are rounded to the type they are stored in *before* codes are chosen, so what
a solver sees is what a file holds. Groups run along a row; the last one may be shorter.

Everything is elementwise or a sum over a group: no loop over rows or groups, only over a few dozen candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint.codes_whet import pack
from whet.errors import UsageError
from whet.grids.grid import INTEGER, Grid, Params, Zero
from whet.grids.grouped import GroupedGrid
from whet.grids.inputs import InputGrid
from whet.grids.least_squares import Quadratic, errors, sums, usable
from whet.grids.levels import Levels, inverse
from whet.grids.packing import pack_columns

# Shrink factors of the range tried by `fit`. Fewer bits want a smaller range and a finer search: at 2 bits the best
# symmetric range of Gaussian groups of 128 is about half the largest weight.
_SHRINK = {2: (0.35, 1.1, 26), 3: (0.5, 1.08, 20), 4: (0.62, 1.06, 12), 5: (0.74, 1.04, 10)}
_SHRINK_WIDE = (0.86, 1.02, 8)


@dataclass(frozen=True)
class IntegerGrid(GroupedGrid):
    """Where a linear's weights may land.

    bits: 2 to 8. group: weights along a row that share a scale; 0 means the whole row (per channel).
    zero: `none`, `int` or `real`. scale_dtype: stored type of scales and real zeros; grids that differ in nothing else
    are one scheme. block: the name of the block type it is (`Q4_0`), whose scales are always float16. inputs: of whose
    inputs are rounded too. unpacked: stored a byte a code, as 8 bits beside rounded inputs always are.
    """

    bits: int
    group: int
    zero: Zero = "int"
    scale_dtype: torch.dtype = field(default=torch.float16, compare=False)
    block: str = field(default="", compare=False)
    inputs: InputGrid | None = None
    unpacked: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise UsageError("An integer grid of {bits} bits does not exist. Choose 2 to 8 bits.", bits=self.bits)
        if self.group < 0:
            raise UsageError(
                "Group size {group} is negative. Choose 0 (per channel) or a positive size.", group=self.group
            )

    @property
    def name(self) -> str:
        """The scheme a user would type for it, e.g. `int4-g32`."""
        if self.block:
            return self.block
        kind = {"none": "s", "int": "", "real": "z"}[self.zero]
        name = f"int{self.bits}{kind}" + (f"-g{self.group}" if self.group else "")
        return name if self.inputs is None else f"{name}+{self.inputs.name}"

    @property
    def kind(self) -> str:
        """What targets call it."""
        return INTEGER

    @property
    def compressed(self) -> dict[str, Any] | None:
        """How compressed-tensors calls it, which has no real zeros."""
        if self.zero == "real":
            return None
        weights: dict[str, Any] = {"num_bits": self.bits, "type": "int", "symmetric": self.zero == "none"}
        weights |= {"strategy": "group" if self.group else "channel", "group_size": self.group or None}
        form = "int-quantized" if self.bytewise else "pack-quantized"
        more = {} if self.inputs is None else {"input_activations": self.inputs.compressed}
        return {"format": form, "weights": {**weights, "dynamic": False}, **more}

    @property
    def bytewise(self) -> bool:
        """Whether codes are stored as signed bytes, as kernels that multiply integers read them."""
        return self.inputs is not None and self.zero == "none" and (self.bits == 8 or self.unpacked)

    @property
    def top(self) -> int:
        """Largest code."""
        return 2**self.bits - 1

    @property
    def half(self) -> int:
        """Code of zero in the symmetric grid."""
        return 2 ** (self.bits - 1)

    @property
    def extent(self) -> tuple[float, float]:
        """How many scales the largest weight is, and how many lie between it and the one farthest from it, or zero."""
        # a real zero is as large as the weights themselves
        return (1.0 if self.zero == "real" else self.half), self.top

    def nbytes(self, rows: int, columns: int) -> int:
        """Exact bytes of codes and parameters of a `[rows, columns]` matrix as `stored_parts` has them.

        Codes are a dense bit stream per row, padded to 32 bits; integer zeros are packed the same way along rows.
        """
        count = len(self.groups(columns))
        if self.bytewise:
            return rows * columns + rows * count * self.scale_dtype.itemsize
        code_bytes = 4 * math.ceil(columns * self.bits / 32) * rows
        scale_bytes = rows * count * self.scale_dtype.itemsize
        zero_bytes = {
            "none": 0,
            "int": 4 * math.ceil(rows * self.bits / 32) * count,
            "real": scale_bytes,
        }[self.zero]
        return code_bytes + scale_bytes + zero_bytes

    def regrouped(self, group: int) -> IntegerGrid | None:
        """The same in other groups, unless it is a block type."""
        return None if self.block else replace(self, group=group)

    def unpacking(self) -> Grid:
        """The grid with codes a byte each beside rounded inputs."""
        return replace(self, unpacked=True)

    def with_inputs(self, inputs: InputGrid | None) -> Grid:
        """The grid for linears whose inputs are rounded to `inputs` too."""
        alone = self.block or self.kind != INTEGER
        return super().with_inputs(inputs) if alone else replace(self, inputs=inputs)

    def table_entry(self, decode: str) -> dict[str, Any]:
        """How a linear on it is read."""
        entry: dict[str, Any] = {"bits": self.bits, "group": self.group, "zero": self.zero, "decode": decode}
        entry |= {"form": "bytes"} if self.bytewise else {}
        return entry if self.inputs is None else entry | {"inputs": self.inputs.entry}

    def stored_parts(self, codes: Tensor, params: Params) -> dict[str, Tensor]:
        """The tensors of one linear: dense bit streams, scales, and zeros of whichever kind."""
        if self.bytewise:
            signed = (codes.to(torch.int16) - self.half).to(torch.int8)
            return {"weight": signed, "weight_scale": params["scale"].contiguous()}
        parts = {
            "weight_packed": self._packed(codes),
            "weight_scale": params["scale"].contiguous(),
            "weight_shape": torch.tensor(codes.shape, dtype=torch.int64),
        }
        if self.zero == "int":
            parts["weight_zero_point"] = pack_columns(params["zero"], self.bits)
        elif self.zero == "real":
            parts["weight_offset"] = params["offset"].contiguous()
        return parts

    def _packed(self, codes: Tensor) -> Tensor:
        return pack(codes, self.bits)

    # -- values ---------------------------------------------------------------------------------------------------

    def bind(self, params: Params) -> Levels:
        """The grid's levels under `params`, float32, ready to round many tensors that `params` broadcast against."""
        scale = params["scale"].float()
        steps = inverse(scale)
        if self.zero == "real":
            offset = params["offset"].float()
            return Levels(steps, -offset * steps, scale, offset, self.top, real=True)
        zero = params["zero"].float() if self.zero == "int" else torch.full_like(scale, self.half)
        return Levels(steps, zero, scale, -zero * scale, self.top)

    def dequantize(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of `codes`, in the type the target computes in: parameters are converted first, then multiplied."""
        scale = params["scale"].to(dtype)
        codes = codes.to(dtype)
        if self.zero == "real":
            return codes * scale + params["offset"].to(dtype)
        return (codes - (params["zero"].to(dtype) if self.zero == "int" else self.half)) * scale

    def zero_value(self, params: Params) -> Tensor | None:
        """The code whose value is exactly 0 (broadcastable like `params`), or None where the grid has none."""
        if self.zero == "real":
            return None
        if self.zero == "int":
            return params["zero"].float()
        return torch.full_like(params["scale"], self.half, dtype=torch.float32)

    # -- given codes ----------------------------------------------------------------------------------------------

    def refit(self, codes: Tensor, gradient: Tensor, h: Tensor, params: Params) -> tuple[Params, Tensor] | None:
        """The best parameters `[out]` of one group for its `codes [group, out]`, and by how much they lower the loss.

        h: second moment of the group's inputs. gradient: h's product with what rounding leaves, all columns counted.
        None where no row gains.
        """
        real = self.zero == "real"
        along = self.bind(params).along(codes.clone())
        told = Quadratic.of_moments(along, torch.ones_like(along[:, :1]) if real else None, gradient, h)
        scale = params["scale"].float()
        new = {"scale": self.stored(scale + told.step())}
        step = new["scale"].float() - scale
        lift = torch.zeros_like(step)
        if real:
            offset = params["offset"].float()
            new["offset"] = self.stored(offset + told.lift(step))
            lift = new["offset"].float() - offset
        gain = told.gain(step, lift)
        better = (gain > 0) & torch.isfinite(gain) & (real | (new["scale"] != 0))
        if not better.any():
            return None
        return {k: torch.where(better, v, params[k]) for k, v in new.items()}, torch.where(better, gain, 0.0).sum()

    # -- the search's parts, on weights `x [group, n]` of importance `[group]` or `[group, n]` -----------------------

    def _candidates(self, x: Tensor, weight: Tensor, keep: int) -> Params:
        """The `keep` best parameter sets `[keep, n]`, best first.

        They are shrunken ranges, each improved by weighted least squares given its codes (the closed form of
        llama.cpp's K-quants), and differ as far as there are enough. A single one is chosen by the error of the codes
        that it gives as stored; several, which the caller will compare by a better measure, by what least squares
        leaves.
        """
        weight = usable(weight)
        starts = self._starts(x)
        tried, losses = self._least_squares(x, weight, starts)
        losses, order = losses.topk(min(4 * keep, len(losses)), dim=0, largest=False, sorted=True)
        tried = {k: v.gather(0, order) for k, v in tried.items()}
        best = self._stored(tried)
        if keep == 1:
            # the whole range as it is always takes part: the search is never worse than min-max rounding
            whole = self._stored({k: v[:1] for k, v in starts.items()})
            best = {k: torch.cat([v, whole[k]]) for k, v in best.items()}
            losses = errors(self.bind(best), x, weight)
        else:
            # Starts that gave the same codes ended up equal, next to each other now, and one is enough: at 2 bits
            # in groups of 32, GPTQ's loss is 3 % lower when 8 different ones are tried.
            again = (losses[1:] == losses[:-1]) & (tried["scale"][1:] == tried["scale"][:-1])
            losses[1:].masked_fill_(again, 0.0)
        order = losses.topk(min(keep, len(losses)), dim=0, largest=False, sorted=True).indices
        return {k: v.gather(0, order) for k, v in best.items()}

    def _starts(self, x: Tensor) -> Params:
        """Unrounded parameter sets `[starts, n]` to start the search from; the first is the whole range."""
        if self.zero == "none":
            return {"scale": signed_starts(x, self.bits, -self.half, self.half - 1)}
        low_end, high_end = x.amin(0), x.amax(0)
        if self.zero == "real":
            scale, offset = ranged_starts(low_end, high_end, self.bits)
            return {"scale": scale, "offset": offset}
        factors = shrunken(x, self.bits)
        low_end, high_end = low_end.clamp_max(0), high_end.clamp_min(0)
        span = (high_end - low_end) / self.top
        # One-sided or constant groups keep a zero at the end of the grid.
        middle = torch.round(-low_end / torch.where(span == 0, 1.0, span))
        scales: list[Tensor] = []
        zeros: list[Tensor] = []
        reach = 2 if self.bits <= 3 else 1
        for shift in sorted(range(-reach, reach + 1), key=abs):
            scales.append(span * (factors if shift == 0 or self.bits <= 4 else factors[::2]))
            zeros.append((middle + shift).clamp(0, self.top).expand_as(scales[-1]))
        return {"scale": torch.cat(scales), "zero": torch.cat(zeros)}

    def _least_squares(self, x: Tensor, weight: Tensor, starts: Params) -> tuple[Params, Tensor]:
        """The best scale (and real zero) for the codes of each of `starts [starts, n]`, and minus the loss it saves."""
        told = sums(self.bind(starts), x, weight)
        if self.zero == "real":
            flat = told.curve * told.flat - told.cross * told.cross <= 1e-6 * told.curve * told.flat
            # all codes equal: any scale does, the offset takes the mean
            ideal = torch.where(flat, starts["scale"], told.step())
            saved = torch.where(flat, told.flat_slope.square() / told.flat, told.gain(ideal, told.lift(ideal)))
            scale = self.stored(ideal).float()
            # the offset makes up for the scale's rounding
            return {"scale": scale, "offset": told.lift(scale)}, -saved
        scale = torch.where(told.curve > 0, told.step(), starts["scale"])
        return {**starts, "scale": scale}, -scale * told.slope

    def _stored(self, params: Params) -> Params:
        """Parameters rounded to the types they are stored in."""
        return {k: v.to(torch.uint8) if k == "zero" else self.stored(v) for k, v in params.items()}


def shrunken(x: Tensor, bits: int) -> Tensor:
    """What ranges are multiplied by when a search starts from them, `[starts, 1]`; the first is 1."""
    low, high, count = _SHRINK.get(bits, _SHRINK_WIDE)
    return torch.cat([x.new_ones(1), torch.linspace(low, high, count, device=x.device)])[:, None]


def signed_starts(x: Tensor, bits: int, least: float, most: float) -> Tensor:
    """Unrounded scales `[starts, n]` for weights `x [group, n]` on levels from `least` to `most`, -least >= most > 0.

    The farther end of a group lies on the least level, whatever its sign; shrunken, the other way round too.
    """
    factors = shrunken(x, bits)
    extreme = x.gather(0, x.abs().argmax(0, keepdim=True))
    # The other sign: its far end is the smaller extreme, so the larger one is clipped or the step is wider.
    other = -factors[:: 3 if bits > 3 else 1]
    return extreme / least * torch.cat([factors, other, other.new_full((1, 1), least / most)])


def ranged_starts(lowest: Tensor, highest: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Unrounded scales and offsets `[starts, n]` of levels from `lowest` to `highest`, each `[n]`, and narrower ones.

    Narrower at both ends alike, or at one of them: with only the first, GPTQ loses 5 % more with a real zero in groups
    of 32, and nearest rounding 12 % more onto Q4_K where some columns matter much more than others.
    """
    both = shrunken(lowest, bits)
    one = both[1::2]
    factors = torch.cat([both, one, one])
    fixed = torch.cat([both.new_full(both.shape, 0.5), torch.zeros_like(one), torch.ones_like(one)])
    span = highest - lowest
    return span / (2**bits - 1) * factors, lowest + span * (1 - factors) * fixed
