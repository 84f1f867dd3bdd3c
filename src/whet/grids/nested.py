"""ggml's block types of two levels as grids: K-quants, whose scales are whole numbers times a float16 that many share.

A row is cut into blocks of 256 weights, a block into groups of 16 or 32. The value of a code `c` is

- `real` (Q2_K, Q4_K, Q5_K):    `(d * s) * c - e * m`, d and e float16 of the block, s and m whole numbers of the group;
- `none` (Q3_K, Q6_K, IQ4_XS):  `(d * s) * v(c)`, s signed; v(c) is `c - 2^(b-1)` or, in IQ4_XS, an entry of a table of
  sixteen values that are denser near zero.

All products are exact in float32, so decoding is what ggml's is, bit for bit, in whichever order it is multiplied.

How good a block is hangs on choosing d, e, s and m together. What a group's codes are worth under any scale and offset
is a quadratic, so d and e are tried at several sizes without another look at the weights, each with the whole numbers
that follow, then solved for given these; in the end the weights as stored decide. Everything is elementwise or a sum
over a group or block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from whet.grids.books import BookLevels, book
from whet.grids.grid import CodedGrid, Params
from whet.grids.grouped import CACHED
from whet.grids.integer import ranged_starts, signed_starts
from whet.grids.least_squares import Quadratic, errors, sums, usable
from whet.grids.levels import Levels, inverse
from whet.grids.packing import pack, pack_columns

_LARGEST, _SMALLEST_NORMAL = 65504.0, 2.0**-14
# Sizes of a shared number that are tried, over the one that puts its largest group on the largest whole number. Whole
# numbers of four bits are coarse: it matters where the groups happen to fall.
_SIZES = {4: (0.75, 1.2, 10), 6: (0.95, 1.05, 3), 8: (1.0, 1.0, 1)}
# Where the shared float16 is too small to be exact, a larger one with smaller whole numbers comes closer.
_LARGER = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_KEPT = 3  # starts of a group whose codes every shared number is tried with
_TRIED = 4  # whole numbers of a group that are tried on the weights themselves
_ROUNDS = 3
# Where no column of a group matters to a block in which others do, its weights are still rounded sensibly.
_DEAD = 1e-9


@dataclass(frozen=True)
class NestedGrid(CodedGrid):
    """Where a linear's weights may land as one of ggml's block types of two levels.

    name: ggml's. bits: of a code. zero: `real` or `none`, as above. part: weights whose scale is one whole number.
    part_bits: bits of that. values: what codes stand for, if not the whole numbers. group: weights that share the
    float16 numbers, which must divide a row.
    """

    name: str
    bits: int
    zero: Literal["none", "real"]
    part: int
    part_bits: int
    values: tuple[int, ...] = ()
    group: int = 256

    scale_dtype = torch.float16

    uncompressed = "compressed-tensors has neither scales of two levels nor tables of values"

    @property
    def multiple(self) -> int:
        """What must divide a row."""
        return self.group

    @property
    def kind(self) -> str:
        """What targets call it."""
        return self.name

    @property
    def parts(self) -> int:
        """Groups of a block."""
        return self.group // self.part

    @property
    def half(self) -> int:
        """Code of zero in a symmetric grid."""
        return 2 ** (self.bits - 1)

    @property
    def part_zero(self) -> int:
        """What is taken off a stored whole number of a symmetric grid, whose scales are signed."""
        return 2 ** (self.part_bits - 1) if self.zero == "none" else 0

    def groups(self, columns: int) -> list[tuple[int, int]]:
        """Start and end column of every group that has a scale of its own."""
        return [(start, start + self.part) for start in range(0, columns, self.part)]

    def blocks(self, columns: int) -> dict[int, tuple[int, int, int]]:
        """Columns that share parameters: index, start and end of each block, by the last of its groups."""
        count = columns // self.group
        return {(i + 1) * self.parts - 1: (i, i * self.group, (i + 1) * self.group) for i in range(count)}

    def nbytes(self, rows: int, columns: int) -> int:
        """Exact bytes of codes and parameters of a `[rows, columns]` matrix as `stored_parts` has them."""
        kinds = 2 if self.zero == "real" else 1
        numbers = 4 * -(-rows * self.part_bits // 32) * kinds * (columns // self.part)
        return rows * (columns * self.bits // 8 + 2 * kinds * (columns // self.group)) + numbers

    def table_entry(self, decode: str) -> dict[str, Any]:
        """How a linear on it is read: in float32, as ggml does."""
        entry = {"bits": self.bits, "group": self.group, "zero": self.zero, "decode": "float32"}
        entry |= {"part": self.part, "part_bits": self.part_bits}
        return entry | ({"values": list(self.values)} if self.values else {})

    def stored_parts(self, codes: Tensor, params: Params) -> dict[str, Tensor]:
        """The tensors of one linear: a dense bit stream, float16 numbers, and whole numbers packed along rows."""
        numbers = [params[name] for name in _OWN if name in params]
        parts = {
            "weight_packed": pack(codes, self.bits),
            "weight_scale": params["scale"].contiguous(),
            "weight_shape": torch.tensor(codes.shape, dtype=torch.int64),
            "weight_parts": pack_columns(torch.cat(numbers, dim=1), self.part_bits),
        }
        return parts | ({"weight_offset": params["offset"].contiguous()} if self._real else {})

    # -- values ---------------------------------------------------------------------------------------------------

    def group_params(self, params: Params, index: int) -> Params:
        """Those of group `index`, of `params` that have groups or blocks along their first dimension."""
        return {k: v[index if _is_own(k) else index // self.parts] for k, v in params.items()}

    def bind(self, params: Params) -> Levels:
        """The grid's levels under `params`, which broadcast against each other and against what is rounded."""
        scale = params["scale"].float() * (params["part_scale"].float() - self.part_zero)
        return self._levels(scale, -params["offset"].float() * params["part_offset"].float() if self._real else None)

    def dequantize(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """Values of `codes`, computed in float32 as ggml does."""
        return self.bind(params).value(codes.float()).to(dtype)

    def zero_value(self, params: Params) -> Tensor | None:
        """The code whose value is exactly 0 (broadcastable like `params`), or None where the grid has none."""
        return None if self._real or self.values else torch.full_like(params["scale"], self.half, dtype=torch.float32)

    def stored(self, x: Tensor) -> Tensor:
        """What blocks share as it will be stored: float16, the largest of it where it holds no more."""
        return x.clamp(-_LARGEST, _LARGEST).to(self.scale_dtype)

    def encode(self, w: Tensor, params: Params) -> Tensor:
        """Nearest codes, uint8, of `w [out, in]` given its params."""
        return self._spread(params).codes(w.float().reshape(len(w), -1, self.part)).to(torch.uint8).reshape(w.shape)

    def decode(self, codes: Tensor, params: Params, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix `[out, in]` that `codes` and `params` stand for, computed in float32."""
        parts = codes.float().reshape(len(codes), -1, self.part)
        return self._spread(params).value(parts).reshape(codes.shape).to(dtype)

    # -- choosing parameters --------------------------------------------------------------------------------------

    def fit(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """Parameters that bring nearest rounding of `w [out, in]` closest, in importance-weighted squares: float16
        `scale` (and `offset`) `[out, blocks]`, uint8 `part_scale` (and `part_offset`) `[out, groups]`."""
        rows = len(w)
        blocks = w.float().reshape(-1, self.group)
        weight = None if importance is None else importance.expand(w.shape).reshape(-1, self.group)
        size = max(1, CACHED // self.group)
        found = []
        for start in range(0, len(blocks), size):
            x = blocks[start : start + size]
            own = torch.ones_like(x) if weight is None else weight[start : start + size].float()
            own = usable(own.t()).t().clamp_min(_DEAD)
            found.append(self._fit_blocks(*(v.reshape(-1, self.part).t().contiguous() for v in (x, own))))
        return {k: torch.cat([one[k] for one in found]).reshape(rows, -1) for k in found[0]}

    def shared(self, w: Tensor, importance: Tensor | None = None) -> Params:
        """What the groups of a block share, `[out, blocks]`: it is chosen before a group's own parameters are."""
        return {k: v for k, v in self.fit(w, importance).items() if not _is_own(k)}

    def candidates(self, w: Tensor, importance: Tensor | None, keep: int, shared: Params | None = None) -> Params:
        """The `keep` best whole numbers `[keep, n]` for rows of `w [n, part]`, and beside them what blocks share."""
        assert shared is not None
        x = w.float().t().contiguous()
        weight = x.new_ones(()) if importance is None else importance.float()
        told = sums(self._starts(x), x, usable(weight.expand(w.shape).t()))
        found, gain = self._whole(told, shared)
        best = _different(gain, _key(found), keep)
        return {k: v.gather(0, best) if _is_own(k) else v.expand(best.shape) for k, v in found.items()}

    def refit(self, codes: Tensor, gradient: Tensor, h: Tensor, params: Params) -> tuple[Params, Tensor] | None:
        """The best whole numbers `[out]` of one group for its `codes [part, out]`, and by how much the loss falls."""
        levels = self.bind(params)
        along = levels.along(codes.clone())
        told = Quadratic.of_moments(along, torch.ones_like(along[:, :1]) if self._real else None, gradient, h)
        # an offset makes up for some of what rounding the scale does, so the next but one may be the best
        found, gain = self._whole(told, {k: v for k, v in params.items() if not _is_own(k)}, (-1, 0, 1, 2), levels)
        gain, best = gain.reshape(4, -1).max(0, keepdim=True)
        better = gain[0] > 0
        if not better.any():
            return None
        own = {k: v.reshape(4, -1).gather(0, best)[0] for k, v in found.items() if _is_own(k)}
        new = {k: torch.where(better, v, params[k]) for k, v in own.items()}
        return new, gain[0].clamp_min(0).sum()

    def refit_shared(
        self, codes: Tensor, gradient: Tensor, h: Tensor, params: Params, index: int
    ) -> tuple[Params, Tensor] | None:
        """The best float16 numbers `[out]` of block `index` for its `codes [group, out]`, and what they save.

        params: of all groups and blocks, along their first dimension. h, gradient: as for `refit`, of the whole block.
        """
        groups = slice(index * self.parts, (index + 1) * self.parts)
        params = {k: v[groups] if _is_own(k) else v[index] for k, v in params.items()}
        spread = {k: v.repeat_interleave(self.part, 0) if _is_own(k) else v for k, v in params.items()}
        whole = spread["part_scale"].float() - self.part_zero
        flat = -spread["part_offset"].float() if self._real else None
        told = Quadratic.of_moments(self.bind(spread).along(codes.clone()).mul_(whole), flat, gradient, h)
        new = {"scale": self.stored(params["scale"].float() + told.step())}
        step = new["scale"].float() - params["scale"].float()
        lift = torch.zeros_like(step)
        if self._real:
            new["offset"] = self.stored((params["offset"].float() + told.lift(step)).clamp_min(0))
            lift = new["offset"].float() - params["offset"].float()
        gain = told.gain(step, lift)
        better = gain > 0
        if not better.any():
            return None
        return {k: torch.where(better, v, params[k]) for k, v in new.items()}, gain.clamp_min(0).sum()

    # -- the search's parts, on weights `x [part, n]` of importance `[part, n]`, groups of a block one after another --

    @property
    def _real(self) -> bool:
        return self.zero == "real"

    def _levels(self, scale: Tensor, offset: Tensor | None) -> Levels:
        if self.values:
            return BookLevels.of(book(self.values, scale.device), scale)
        steps = inverse(scale)
        if offset is None:
            return Levels(steps, torch.full_like(scale, self.half), scale, -self.half * scale, 2**self.bits - 1)
        return Levels(steps, -offset * steps, scale, offset, 2**self.bits - 1, real=True)

    def _spread(self, params: Params) -> Levels:
        """Levels `[out, groups, 1]`."""
        by_group = self.spread(params, params["part_scale"].shape[1])
        return self.bind({k: v[..., None] for k, v in by_group.items()})

    def _starts(self, x: Tensor) -> Levels:
        """Unrounded levels `[starts, n]` to start the search from."""
        if not self._real:
            ends = (self.values[0], self.values[-1]) if self.values else (-self.half, self.half - 1)
            return self._levels(signed_starts(x, self.bits, *ends), None)
        return self._levels(*ranged_starts(x.amin(0).clamp_max(0), x.amax(0), self.bits))

    def _whole(
        self, told: Quadratic, shared: Params, reach: tuple[float, ...] = (0, 1), levels: Levels | None = None
    ) -> tuple[Params, Tensor]:
        """Parameters near the best of the quadratics `told [sets, n]` or `[n]`, and what each gains: `[more sets, n]`.

        shared: what the groups' blocks share, `[n]`; without an offset among it, offsets are not rounded. reach: whole
        numbers that are tried, as what is added to the best before it is rounded down. levels: where the quadratics
        start, from nothing unless given.
        """
        scale, offset = (0.0, 0.0) if levels is None else (levels.scale, levels.offset if self._real else 0.0)
        unit = shared["scale"].float()
        ideal = told.step()
        if self._real:  # offsets are not above zero: where they would be, the scale is the best beside none
            ideal = torch.where(offset + told.lift(ideal) > 0, told.step_at(torch.zeros_like(ideal) - offset), ideal)
        near = _over(scale + ideal, unit)
        wholes, lower, gains = [], [], []
        for more in reach:
            whole = torch.floor(near + more).clamp_(-self.part_zero, 2**self.part_bits - 1 - self.part_zero)
            step = whole * unit - scale
            lift = torch.zeros_like(step)
            if self._real:
                target = (offset + told.lift(step)).clamp_max_(0)
                if "offset" in shared:
                    each = shared["offset"].float()
                    lower.append(torch.round(_over(-target, each)).clamp_(0, 2**self.part_bits - 1))
                    target = -lower[-1] * each
                lift = target - offset
            wholes.append(whole + self.part_zero)
            gains.append(told.gain(step, lift))
        found = {
            k: torch.stack(v).flatten(0, -2).to(torch.uint8) for k, v in zip(_OWN, (wholes, lower), strict=True) if v
        }
        return shared | found, torch.stack(gains).flatten(0, -2)

    def _fit_blocks(self, x: Tensor, weight: Tensor) -> Params:
        """The best parameters: what blocks share `[n / parts]`, and the groups' own `[n]`."""
        told = sums(self._starts(x), x, weight)
        step = told.step()
        order = told.gain(step, told.lift(step)).topk(min(_KEPT, len(step)), 0).indices
        told, step = told.gather(order), step.gather(0, order)
        shared = {"scale": self._sized(told, {}, "scale", step[0])}
        if self._real:
            shared["offset"] = self._sized(told, shared, "offset", -told.lift(step)[0])
        params, codes, gain = self._best(told, shared)
        best, most = params, gain
        # what is shared given codes and whole numbers, then whole numbers given what is shared
        for _ in range(_ROUNDS):
            params, codes, gain = self._best(told, self._solved(codes, params))
            best = _where(gain > most, params, best)
            most = torch.maximum(gain, most)
        best, least = self._tried(x, weight, told, best)
        # the same on the codes that come out in the end
        for _ in range(_ROUNDS - 1):
            codes = sums(self.bind({k: v[None] for k, v in best.items()}), x, weight)
            params, loss = self._tried(x, weight, codes, self._solved(codes, best))
            best = _where(loss < least, params, best)
            least = torch.minimum(loss, least)
        return {k: v if _is_own(k) else v[:: self.parts] for k, v in best.items()}

    def _sized(self, told: Quadratic, shared: Params, name: str, extreme: Tensor) -> Tensor:
        """The size of a shared number, float16 `[n]`, with which groups gain most.

        extreme: what the numbers of each group would be, if they were not rounded.
        """
        low, high, count = _SIZES[self.part_bits]
        grouped = extreme.reshape(-1, self.parts)
        extreme = grouped.gather(1, grouped.abs().argmax(1, keepdim=True))[:, 0].repeat_interleave(self.parts)
        factors = torch.linspace(low, high, count).tolist()
        if (extreme.abs().amin() / 2**self.part_bits).item() < _SMALLEST_NORMAL:
            factors += _LARGER
        highest = 2**self.part_bits - 1 - self.part_zero
        best, most = torch.zeros_like(extreme, dtype=torch.float16), torch.full_like(extreme, -torch.inf)
        for end in (highest, -self.part_zero) if self.part_zero else (highest,):
            for factor in factors:
                number = self.stored(extreme / end * factor)
                gain = self._best(told, shared | {name: number}, reach=(0.5,))[2]
                best, most = torch.where(gain > most, number, best), torch.maximum(gain, most)
        return best

    def _best(
        self, told: Quadratic, shared: Params, reach: tuple[float, ...] = (0, 1)
    ) -> tuple[Params, Quadratic, Tensor]:
        """The parameters `[n]` that gain most, the quadratics they are of `[1, n]`, and their block's gain `[n]`."""
        found, gain = self._whole(told, shared, reach)
        gain, pick = gain.max(0, keepdim=True)
        params = {k: v.gather(0, pick)[0] if _is_own(k) else v for k, v in found.items()}
        return params, told.gather(pick % len(told.slope)), self._total(gain[0])

    def _tried(self, x: Tensor, weight: Tensor, told: Quadratic, shared: Params) -> tuple[Params, Tensor]:
        """The parameters `[n]` of some that gain most with which the weights lose least, and their blocks' loss."""
        found, gain = self._whole(told, {k: v for k, v in shared.items() if not _is_own(k)})
        index = _different(gain, _key(found), _TRIED)
        some = {k: v.gather(0, index) if _is_own(k) else v.expand(index.shape) for k, v in found.items()}
        loss, pick = errors(self.bind(some), x, weight).min(0, keepdim=True)
        return {k: v.gather(0, pick)[0] for k, v in some.items()}, self._total(loss[0])

    def _solved(self, told: Quadratic, params: Params) -> Params:
        """What is best for blocks to share, `[n]`, given the whole numbers of `params [n]` and codes' `told [1, n]`."""
        whole = params["part_scale"].float() - self.part_zero
        down = -params["part_offset"].float() if self._real else torch.zeros_like(whole)
        each = (
            told.slope * whole,
            told.curve * whole * whole,
            told.flat_slope * down,
            told.flat * down * down,
            told.cross * whole * down,
        )
        block = Quadratic(*(self._total(v[0]) for v in each))
        found = {"scale": self.stored(block.step())}
        if self._real:
            found["offset"] = self.stored(block.lift(found["scale"].float()).clamp_min(0))
        return found

    def _total(self, x: Tensor) -> Tensor:
        """The sum over each group's block, `[n]`."""
        return x.reshape(-1, self.parts).sum(1).repeat_interleave(self.parts)


# A group's own parameters; the others are shared by its block.
_OWN = ("part_scale", "part_offset")


def _is_own(name: str) -> bool:
    return name in _OWN


def _key(params: Params) -> Tensor:
    """A number that tells the groups' own parameters apart."""
    key = params["part_scale"].long()
    return key * 256 + params["part_offset"] if "part_offset" in params else key


def _different(gain: Tensor, key: Tensor, keep: int) -> Tensor:
    """Indices `[keep, n]` of the largest of `gain [sets, n]`, each `key` once as far as there are enough."""
    gain, order = gain.topk(min(12 * keep, len(gain)), 0)
    key = key.gather(0, order)
    for i in range(1, len(key)):
        gain[i].masked_fill_((key[i] == key[:i]).any(0), -torch.inf)
    return order.gather(0, gain.topk(min(keep, len(gain)), 0).indices)


def _over(x: Tensor, unit: Tensor) -> Tensor:
    """`x / unit`, 0 where the unit is 0."""
    return torch.where(unit != 0, x / torch.where(unit != 0, unit, 1.0), 0.0)


def _where(better: Tensor, new: Params, old: Params) -> Params:
    return {k: torch.where(better, new[k], v) for k, v in old.items()}
