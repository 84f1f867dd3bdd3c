"""Plain floats as a grid: a cast, whichever solver asks for it."""

from __future__ import annotations

import torch

from covering import matrix
from solvers import ROUNDERS
from whet.grids import FloatGrid, parse_scheme
from whet.quantize import second_moment_error


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
    made = grid.decode(sparse.codes, sparse.params)
    plain = (w * mask).to(dtype).float()
    assert not made[~mask].any()
    if solver == "nearest":
        assert torch.equal(made, plain)
    else:  # what is kept makes up for what is gone
        assert second_moment_error(w, made, h) < 0.9 * second_moment_error(w, plain, h)
    assert torch.equal(solution.rows(2, 4).codes, solution.codes[2:4])
