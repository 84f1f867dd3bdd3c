"""The rows of the shared test matrix: every scheme that laws of grids, solvers and training are tested on.

A new grid is tested everywhere once its scheme stands here; those of the tables in `whet.grids.schemes` do already.
"""

from __future__ import annotations

import torch

from whet.grids import BLOCKS, FLOATS, SMALL_FLOATS, parse_scheme

EVERY = (*SMALL_FLOATS, *BLOCKS, *FLOATS, "nf4-g20", "int2-g16", "int2s-g16", "int3s-g24", "int4", "int4z-g20", "int8s")
CODED = tuple(name for name in EVERY if parse_scheme(name).coded is not None)


def widths(scheme: str) -> tuple[int, ...]:
    """Columns of rows that it can be of: two groups or more, and where it may be so a ragged last one."""
    multiple = parse_scheme(scheme).multiple
    return (128, 150) if multiple <= 2 else (multiple, 2 * multiple)


def problem(rows: int, columns: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and a second moment with correlated inputs of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator) * 0.1
    x = torch.randn(600, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    x = x * torch.logspace(-1, 1, columns)[torch.randperm(columns, generator=generator)]
    return w, x.t() @ x / 600
