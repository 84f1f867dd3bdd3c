"""Plain floats as a grid: a cast, whichever solver asks for it."""

from __future__ import annotations

import torch

from covering import matrix
from solvers import ROUNDERS
from whet.grids import FloatGrid, parse_scheme


@matrix({"name,dtype": [("F16", torch.float16), ("bf16", torch.bfloat16)], "solver": ROUNDERS})
def test_every_solver_casts(name, dtype, solver):
    grid = parse_scheme(name)
    assert isinstance(grid, FloatGrid) and grid.name == name.upper() and grid.bits == 16
    w = torch.randn(6, 45)
    h = torch.eye(45) + torch.ones(45, 45)
    mask = torch.rand(6, 45) > 0.5
    solution = ROUNDERS[solver](w, h, grid)
    assert torch.equal(grid.decode(solution.codes, solution.params), w.to(dtype).float())
    assert solution.codes.nbytes == grid.nbytes(6, 45) and solution.params == {}
    sparse = ROUNDERS[solver](w, h, grid, mask)
    assert torch.equal(grid.decode(sparse.codes, sparse.params), (w * mask).to(dtype).float())
    assert torch.equal(solution.rows(2, 4).codes, solution.codes[2:4])
