"""Scales of inputs that the folder holds, calibrated on what reaches a block in the lighter stream.

Each of several rules proposes a scale for an input, and that one stays with which the outputs of the linears that read
it lose least on a sample of the tokens. (No rule is best everywhere: of heavy tails a percentile, of few and large
spikes the largest value.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from whet.anatomy import Linear
from whet.apply.shards import Shards
from whet.checkpoint import read_header, read_tensor
from whet.grids import InputGrid
from whet.walk import BlockStep
from whet.walk.moments import HeardEnough
from whet.walk.skeleton import hooked

TOKENS = 1024  # of an input that scales are tried on
PERCENTILES = (0.99, 0.999, 0.9999, 0.99999)
_SHRINK = 32  # shares of the largest value that are tried by squares and by divergence
_BINS = 2048
_LEVELS = 128  # bins that a histogram is merged to: values of 8 bits on one side of zero


def module_of(linear: Linear, prefix: str) -> str:
    """The module inside the block whose input is that of `linear`."""
    return linear.held.parameter.removeprefix(prefix).rpartition(".")[0]


class Sampled:
    """Inputs of a block by `Linear.reads`: about `TOKENS` of them, evenly spaced, `[tokens, in]` float32, and the
    largest absolute value of all."""

    def __init__(self, step: BlockStep, linears: Sequence[Linear], batches: Sequence[int]) -> None:
        walk, self.largest = step.walk, dict[str, float]()
        first: dict[str, Linear] = {}
        for linear in linears:
            first.setdefault(linear.reads, linear)
        found: dict[str, list[Tensor]] = {}
        share = max(1, -(-TOKENS // max(1, len(batches))))

        def hook(reads: str):  # type: ignore[no-untyped-def]
            def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
                x = args[0].detach().reshape(-1, args[0].shape[-1]).float()
                self.largest[reads] = max(self.largest.get(reads, 0.0), x.abs().max().item())
                found.setdefault(reads, []).append(x[:: max(1, len(x) // share)].clone())

            return keep

        handles = [
            step.module.get_submodule(module_of(linear, step.prefix)).register_forward_pre_hook(hook(reads))
            for reads, linear in first.items()
        ]
        was, walk.inputs.on = walk.inputs.on, False
        with hooked(handles), torch.no_grad(), contextlib.suppress(HeardEnough):
            for batch in batches:
                walk.run(step, walk.lighter[batch], batch)
        walk.inputs.on = was
        self.inputs = {reads: torch.cat(some) for reads, some in found.items()}


def calibrate(shards: Shards, step: BlockStep, linears: Sequence[Linear]) -> dict[str, str]:
    """Give the walk the scales of the inputs of a block that have one; returns by address the rule that found it.

    Of a finished block they are read from its file.
    """
    grids = {x.address: grid for x in linears if (grid := shards.job.grids[x.address].inputs) and grid.scale_part}
    if not grids:
        return {}
    inputs, unit = step.walk.inputs, f"block {step.index}"
    if shards.finished(unit):
        stored = read_header(shards.file_of(unit))
        for piece in shards.job.pieces:
            for linear in piece.linears:
                if (grid := grids.get(linear.address)) is not None:
                    value = read_tensor(stored[f"{piece.address}.{grid.scale_part}"])
                    inputs.scales[linear.address] = value.to(shards.job.device)
        return {}
    mine = [x for x in linears if x.address in grids]
    sampled = Sampled(step, mine, range(step.walk.solving))
    rules = {}
    for reads, x in sampled.inputs.items():
        readers = [linear for linear in mine if linear.reads == reads]
        weights = torch.cat([step.weight(linear) for linear in readers])
        grid = grids[readers[0].address]
        rule, scale = best_scale(x, weights, grid, sampled.largest[reads], shards.job.dtype)
        for linear in readers:
            inputs.scales[linear.address], rules[linear.address] = scale.to(shards.job.device), rule
    return rules


def best_scale(x: Tensor, weights: Tensor, grid: InputGrid, largest: float, dtype: torch.dtype) -> tuple[str, Tensor]:
    """The scale `[1]` of inputs, as stored, of which linears of `weights [out, in]` lose least on `x [tokens, in]`, and
    the rule that proposed it. largest: absolute value of all inputs. dtype: the model's."""
    if grid.per != "tensor":  # NVFP4's is a factor alone
        return "largest", grid.scale_of(largest, dtype)
    proposed = {"largest": largest, **_proposals(x, grid, largest, dtype)}
    lost: dict[str, float] = {}
    for rule, range_ in proposed.items():
        rounded = grid.rounded(x.to(dtype), grid.scale_of(range_, dtype).to(x.device)).float()
        lost[rule] = ((x - rounded) @ weights.t()).square().sum().item()
    rule = min(lost, key=lost.__getitem__)
    return rule, grid.scale_of(proposed[rule], dtype)


def _proposals(x: Tensor, grid: InputGrid, largest: float, dtype: torch.dtype) -> Mapping[str, float]:
    """By rule the largest absolute input that is not clipped."""
    size = x.abs().flatten().sort().values
    found = {f"percentile {100 * p:g}": size[min(len(size) - 1, int(p * len(size)))].item() for p in PERCENTILES}
    ranges = [largest * (k + 1) / _SHRINK for k in range(_SHRINK)]
    squares = [
        (x - grid.rounded(x.to(dtype), grid.scale_of(one, dtype).to(x.device)).float()).square().sum().item()
        for one in ranges
    ]
    found["squares"] = ranges[squares.index(min(squares))]
    if grid.values == "int" and largest > 0:
        found["divergence"] = _least_divergence(size, largest)
    return {rule: one for rule, one in found.items() if one > 0}


def _least_divergence(size: Tensor, largest: float) -> float:
    """The range whose histogram, clipped and merged to the levels of 8 bits, says least else than it does whole (as
    TensorRT calibrates)."""
    counts = torch.histc(size, _BINS, 0.0, largest)
    best, kept = torch.inf, largest
    for bins in range(_LEVELS, _BINS + 1, _LEVELS):
        whole = counts[:bins].clone()
        whole[-1] += counts[bins:].sum()
        groups = counts[:bins].view(_LEVELS, -1)
        there = (groups > 0).float()
        spread = (groups.sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp_min(1) * there).flatten()
        p, q = whole / whole.sum(), spread / spread.sum().clamp_min(1)
        kl = torch.where(p > 0, p * (p.clamp_min(1e-12) / q.clamp_min(1e-9)).log(), 0.0).sum().item()
        if kl < best:
            best, kept = kl, largest * bins / _BINS
    return kept
