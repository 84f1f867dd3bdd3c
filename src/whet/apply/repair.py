"""Low-rank repair: what rounding lost of a module, put back by an adapter, and weights rounded anew beside it."""

from __future__ import annotations

import dataclasses

import torch

from whet.apply.job import Job
from whet.apply.linear import Part, in_one, kind
from whet.grids import Grid
from whet.quantize import eora

# Times that what is repaired is rounded anew beside its repair, at most. KL of a model of a million parameters with
# rank 8 after 0, 1 and 3 times: 0.0432, 0.0396, 0.0375 on 3 bits, 0.250, 0.234, 0.208 on 2 (0.197 after 8).
REPAIR_ROUNDS = 3


def repaired(job: Job, parts: list[Part]) -> list[Part]:
    """`parts`, which are all that read one input, each with its repair, and rounded anew to what that leaves for as
    long as both together lose less."""
    best = _with_factors(job, parts)
    for _ in range(REPAIR_ROUNDS if any(part.factors is not None for part in best) else 0):
        kinds: dict[tuple[Grid, str], list[Part]] = {}
        for part in best:
            kinds.setdefault(kind(job, part.linear), []).append(part)
        again: list[Part] = []
        for (grid, _), together in kinds.items():
            aims, masks = [part.aim - part.added for part in together], [part.mask for part in together]
            grid, solutions = in_one(job, aims, together[0].h, grid, masks)
            again += [
                dataclasses.replace(part, grid=grid, solution=solution)
                for part, solution in zip(together, solutions, strict=True)
            ]
        again = _with_factors(job, again)
        if not sum(_lost(job, part) for part in again) < sum(_lost(job, part) for part in best):
            break
        best = again
    return best


def _with_factors(job: Job, parts: list[Part]) -> list[Part]:
    """`parts` with what repairs their errors best, module by module."""
    by_address = {part.linear.address: part for part in parts}
    for module in job.repaired:
        here = [by_address[x.address] for x in module.linears if x.address in by_address]
        if not here:
            continue
        errors = [part.aim - job.values(part.solution, part.grid) for part in here]
        assert job.repair is not None
        rank = min(job.repair, *module.shape)
        b, a = eora(torch.cat(errors), here[0].h, rank, job.adapter_dtype)
        for part, rows in zip(here, b.split([len(e) for e in errors]), strict=True):
            by_address[part.linear.address] = dataclasses.replace(part, factors=(rows, a))
    return list(by_address.values())


def _lost(job: Job, part: Part) -> float:
    """tr(R h Rᵀ) of what is left of a part's error R beside its repair."""
    error = part.aim - job.values(part.solution, part.grid) - part.added
    return (error if part.h is None else error @ part.h).mul(error).sum().item()
