"""Scales of keys and values that the folder holds, calibrated on what reaches a block in the lighter stream.

Several rules propose a scale, and that one stays with which the block gives what it gave with keys and values as they
are, on a sample of the text: first of keys, then of values. (Of FP8, whose error is a share of each number, they are
close to each other; of integers a clipped tail may leave the others more levels.)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from whet.apply.shards import Shards
from whet.checkpoint import read_header, read_tensor
from whet.errors import UsageError
from whet.grids import CACHE_PARTS, CacheGrid
from whet.walk import BlockStep
from whet.walk.caches import attention_in

TOKENS = 4096  # that rules are compared on, at most
PERCENTILES = (0.999, 0.9999)
_SHRINK = 24  # shares of the largest value that are tried by squares


def calibrate_cache(shards: Shards, step: BlockStep, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the walk the scales of a block's keys and values; returns them by stored name.

    weights: the lighter ones of the block, by address. Of a finished block the scales are read from its file.
    """
    cache = step.walk.cache
    if cache.grid is None:
        return {}
    stem = f"{step.prefix}{attention_in(step.module)}"
    unit = f"block {step.index}"
    if shards.finished(unit):
        stored = read_header(shards.file_of(unit))
        key, value = (read_tensor(stored[f"{stem}.{part}"]).to(shards.job.device) for part in CACHE_PARTS)
        cache.scales[step.index] = key, value
        return {}
    found = _Search(step, cache.grid, weights, shards.job.dtype).found()
    cache.scales[step.index] = found
    return {f"{stem}.{part}": scale.cpu() for part, scale in zip(CACHE_PARTS, found, strict=True)}


class _Search:
    """What the scales of one block are chosen by. dtype: what they are stored in."""

    def __init__(self, step: BlockStep, grid: CacheGrid, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.step, self.grid, self.weights, self.dtype = step, grid, weights, dtype
        sizes, self.batches, taken = step.walk.sizes, list[int](), 0
        for batch in range(step.walk.solving):
            if taken and taken + sizes[batch] > TOKENS:
                break
            self.batches.append(batch)
            taken += sizes[batch]

    def found(self) -> tuple[Tensor, Tensor]:
        """The scales of keys and of values."""
        seen = self._seen()
        chosen: list[Tensor | None] = [None, None]
        wanted = self._given(chosen)
        for place in (0, 1):
            proposed = _proposals(seen[place], self.grid, self.dtype)
            lost = []
            for scale in proposed:
                tried = [scale if at == place else chosen[at] for at in (0, 1)]
                given = self._given(tried)
                lost.append(sum((a - b).double().square().sum().item() for a, b in zip(given, wanted, strict=True)))
            chosen[place] = proposed[lost.index(min(lost))]
        key, value = chosen
        assert key is not None and value is not None
        return key, value

    def _seen(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the sample, `[heads, numbers]` float32."""
        kept: tuple[list[Tensor], list[Tensor]] = ([], [])

        def keep(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            for found, x in zip(kept, (key, value), strict=True):
                found.append(x.detach().float().transpose(0, 1).flatten(1))
            return key, value

        self._run(keep)
        if not kept[0]:
            raise UsageError(
                "block {index}: its attention hands no keys and values to a cache, so there is nothing to calibrate. "
                "Leave --kv out.",
                index=self.step.index,
            )
        return torch.cat(kept[0], 1), torch.cat(kept[1], 1)

    def _given(self, scales: list[Tensor | None]) -> list[Tensor]:
        """What the block gives with keys and values rounded by `scales`; None leaves them as they are."""

        def rounded(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            pairs = zip((key, value), scales, strict=True)
            first, second = (x if scale is None else self.grid.rounded(x, scale) for x, scale in pairs)
            return first, second

        return self._run(rounded)

    def _run(self, trial) -> list[Tensor]:  # type: ignore[no-untyped-def]
        cache = self.step.walk.cache
        cache.trial = trial
        try:
            with torch.no_grad():
                return [self.step.forward(self.weights, batch) for batch in self.batches]
        finally:
            cache.trial = None


def _proposals(x: Tensor, grid: CacheGrid, dtype: torch.dtype) -> list[Tensor]:
    """Scales for `x [heads, numbers]` by each rule, each once."""
    rows = x if grid.per == "head" else x.reshape(1, -1)
    size = rows.abs().sort(1).values
    count = size.shape[1]
    ranges = [size[:, -1], *(size[:, min(count - 1, int(share * count))] for share in PERCENTILES)]
    ranges.append(_least_squares(rows, size[:, -1], grid, dtype))
    scales = [grid.scale_of(one, dtype) for one in ranges]
    return [scale for i, scale in enumerate(scales) if not any(torch.equal(scale, other) for other in scales[:i])]


def _least_squares(rows: Tensor, largest: Tensor, grid: CacheGrid, dtype: torch.dtype) -> Tensor:
    """Of each row the range with the least squared error."""
    best, kept = torch.full_like(largest, torch.inf), largest
    for k in range(_SHRINK):
        # FP8 has room above: a larger scale moves numbers between its powers of two
        tried = largest * ((k + 1) / _SHRINK if grid.values == "int" else 2 ** (2 * k / _SHRINK - 0.5))
        scale = grid.scale_of(tried, dtype).reshape(-1, 1)
        lost = (grid.rounded(rows, scale) - rows).square().sum(1)
        kept, best = torch.where(lost < best, tried, kept), torch.minimum(lost, best)
    return kept
