"""What whet's plan is compared with: uniform schemes and the usual hand rules, priced from whet's scores.

Pure: scores in, mixes with exact bytes and predicted KL out. Scores come one a calibration draw, with every grid of
GRIDS on every part; a predicted KL is the mean over the draws.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEEP = "keep"
BITS, KINDS, GROUPS = range(2, 9), ("s", "", "z"), (16, 32, 64, 128, 0)
GRIDS = [f"int{bits}{kind}" + (f"-g{group}" if group else "") for bits in BITS for kind in KINDS for group in GROUPS]
MIXED = "llama.cpp's _M mix"
ENDS = "first and last block higher"
HIGHER, TABLES = 2, 6  # bits: what hand rules give more, and what the mix gives embedding and head

Scores = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """A mix: its name, the scheme of its linears (or their base), schemes by address, tensor bytes, predicted KL."""

    name: str
    linears: str
    schemes: dict[str, str]
    bytes: int
    kl: float


def plan_of(schemes: Mapping[str, str]) -> dict[str, Any]:
    """The plan of no budget that says just this."""
    return {"format": "whet.plan", "version": 1, "target": "whet", "schemes": dict(schemes)}


def priced(name: str, linears: str, schemes: dict[str, str], scores: Sequence[Scores]) -> Point:
    """The mix of `schemes` with its exact bytes and its predicted KL."""
    size, loss = int(scores[0]["other"]["bytes"]), 0.0
    for parts in zip(*(one["parts"] for one in scores), strict=True):
        scheme = schemes[parts[0]["address"]]
        size += parts[0]["bytes"] if scheme == KEEP else parts[0]["schemes"][scheme]["bytes"]
        loss += 0.0 if scheme == KEEP else math.fsum(part["schemes"][scheme]["kl"] for part in parts) / len(parts)
    return Point(name, linears, schemes, size, loss)


def uniform(scores: Sequence[Scores]) -> Iterator[Point]:
    """Every scheme of the linears with every one of embedding and head, or none."""
    parts = scores[0]["parts"]
    for linears, embed in itertools.product(GRIDS, (KEEP, *GRIDS)):
        schemes = {part["address"]: embed if part["block"] is None else linears for part in parts}
        yield priced(f"uniform {linears}, embedding {embed}", linears, schemes, scores)


def candidates(points: Sequence[Point], limit: int, count: int) -> list[Point]:
    """For each scheme of the linears the best embedding within `limit` bytes; of those the `count` best predicted."""
    best: dict[str, Point] = {}
    for point in sorted((p for p in points if p.bytes <= limit), key=lambda p: p.kl):
        best.setdefault(point.linears, point)
    return list(best.values())[:count]


def hand_rules(scores: Sequence[Scores], limit: int) -> dict[str, Point | None]:
    """Each rule with what is predicted to lose least within `limit` bytes: base bits, kind of zero, group, embedding.

    None where a rule has nothing so small.
    """
    parts = scores[0]["parts"]
    count = 1 + max(part["block"] for part in parts if part["block"] is not None)
    found: dict[str, list[Point]] = {MIXED: [], ENDS: []}
    for bits, kind, group in itertools.product(BITS[:-HIGHER], KINDS, GROUPS):
        tail = f"{kind}-g{group}" if group else kind
        base, high = f"int{bits}{tail}", f"int{bits + HIGHER}{tail}"
        mixed, ends = {}, {}
        for part in parts:
            address, block = part["address"], part["block"]
            more = block is not None and _more_bits(block, count) and part["role"] in ("v", "down")
            mixed[address] = f"int{TABLES}{tail}" if block is None else high if more else base
            ends[address] = high if block in (0, count - 1) else base
        found[MIXED].append(priced(f"{MIXED} on {base}", base, mixed, scores))
        for embed in GRIDS:
            tables = {part["address"]: embed for part in parts if part["block"] is None}
            found[ENDS].append(priced(f"{ENDS} on {base}, embedding {embed}", base, ends | tables, scores))
    return {
        rule: min((p for p in points if p.bytes <= limit), key=lambda p: p.kl, default=None)
        for rule, points in found.items()
    }


def _more_bits(block: int, count: int) -> bool:
    """llama.cpp's use_more_bits, by which Q3_K_M and Q4_K_M give attn_v and ffn_down more."""
    eighth = count // 8
    return block < eighth or block >= 7 * count // 8 or (block - eighth) % 3 == 2
