"""Experts that go, merged into those that stay: which into which, how much each counts, and which of their neurons is
which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MOST = 16  # experts that one takes in (C of the paper)
_TINY = 1e-12


def similarity(outputs: Tensor, gates: Tensor) -> Tensor:
    """How alike experts are `[experts, experts]`, 0 to 1 (REAM, arXiv 2604.04356).

    outputs: what each gives for the same tokens `[experts, tokens, hidden]`. gates: what the router gives it of each,
    before the best are taken `[experts, tokens]`. Half of it is the mean cosine of outputs, the other half how near
    gates are.
    """
    unit = torch.nn.functional.normalize(outputs, dim=-1, eps=_TINY).flatten(1)
    alike = ((unit @ unit.t()).double() / outputs.shape[1] + 1) / 2
    lengths = gates.double().norm(dim=1)
    apart = torch.cdist(gates.double(), gates.double(), compute_mode="donot_use_mm_for_euclid_dist")
    near = 1 - apart / (lengths[:, None] + lengths).clamp_min(_TINY)
    return (alike + near) / 2


def groups(alike: Tensor, kept: Sequence[int]) -> dict[int, list[int]]:
    """By each of the experts `kept` those that are merged into it, at the most `MOST`.

    The pair that is most alike comes first. (The paper lets the experts of most worth choose first, which may send an
    expert into another than the one that it is a copy of.)
    """
    found: dict[int, list[int]] = {one: [] for one in kept}
    gone = [one for one in range(len(alike)) if one not in found]
    pairs = [(-alike[one, other].item(), other, one) for one in gone for other in kept]
    placed: set[int] = set()
    for _, into, one in sorted(pairs):
        if one not in placed and len(found[into]) < MOST:
            found[into].append(one)
            placed.add(one)
    return found


def shares(worth: Sequence[float]) -> list[float]:
    """How much each expert of a group counts, 1 together: by its worth, one that no token was sent to like the least
    that has any."""
    some = [one for one in worth if one > 0]
    if not some:
        return [1 / len(worth)] * len(worth)
    counted = [one if one > 0 else min(some) for one in worth]
    return [one / sum(counted) for one in counted]


def aligned(into: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """For each neuron of an expert the neuron of `other` that takes its place `[neurons]`, each once.

    into, other: of both experts what describes their neurons, `[neurons, n]` each: activations on the same tokens, and
    weights. Neurons are alike by the sum of the cosines. Those that are each other's most alike become pairs, and
    again among the rest.
    """
    units = [
        [torch.nn.functional.normalize(one.float(), dim=1, eps=_TINY) for one in described]
        for described in (into, other)
    ]
    alike = sum((a @ b.t() for a, b in zip(*units, strict=True)), torch.zeros(len(into[0]), len(into[0]))).nan_to_num_()
    found = torch.full((len(alike),), -1)
    rows = columns = torch.arange(len(alike))
    while len(rows):
        rest = alike[rows][:, columns]
        best, back = rest.argmax(1), rest.argmax(0)
        mutual = back[best] == torch.arange(len(rows))
        found[rows[mutual]] = columns[best[mutual]]
        free = torch.ones(len(columns), dtype=torch.bool)
        free[best[mutual]] = False
        rows, columns = rows[~mutual], columns[free]
    return found
