"""The laws of every grid, on the shared matrix: what is stored, what it is read as, and what training starts from."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import whet
from covering import matrix
from schemes import CODED, EVERY, problem, widths
from whet.checkpoint.modeling_whet import decode, parts_of
from whet.grids import CodedGrid, parse_scheme
from whet.quantize import gptq, nearest, pull

ROOMS = Path(whet.__file__).parent
CASES = [(scheme, columns) for scheme in EVERY for columns in widths(scheme)]


@pytest.mark.parametrize("scheme,columns", CASES)
def test_what_is_stored_is_what_the_table_says_and_decodes_to_what_was_solved(scheme, columns):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        grid = parse_scheme(scheme, torch.float16 if dtype == torch.float32 else dtype)
        solution = nearest(problem(24, columns)[0], None, grid)
        parts, entry = grid.stored_parts(solution.codes, solution.params), grid.table_entry("model")
        assert set(parts) == (parts_of(entry) or {"weight"}) and all(part.is_contiguous() for part in parts.values())
        assert sum(v.nbytes for name, v in parts.items() if name != "weight_shape") == grid.nbytes(24, columns)
        computed = torch.float32 if entry["decode"] == "float32" else dtype
        values = grid.decode(solution.codes, solution.params, computed).to(dtype)
        assert torch.equal(decode(parts, entry, dtype), values)


@pytest.mark.parametrize("scheme", EVERY)
def test_a_scheme_is_found_by_its_name_and_its_facts_agree(scheme):
    grid = parse_scheme(scheme)
    assert parse_scheme(grid.name) == grid == parse_scheme(grid.name.upper()) and grid.kind and grid.bits <= 16
    assert (grid.coded is None) == (grid.table_entry("model")["decode"] == "plain")
    for columns in widths(scheme):
        starts, ends = zip(*grid.groups(columns), strict=True)
        assert (starts[0], *ends) == (*starts, columns) and columns % grid.multiple == 0
    assert not (grid.compressed and grid.uncompressed)
    assert grid.regrouped(32) is None or grid.regrouped(32).group == 32
    w = problem(8, 512)[0]
    assert all(grid.suited(other) == grid and grid.safe(other) == grid for other in (w, w * 1e-9))


@matrix({"scheme,columns": [case for case in CASES if case[0] in CODED], "solve": [nearest, gptq]}, strength=1)
def test_relax_at_the_solution_is_decode(scheme, columns, solve):
    """And what it would store is the solution, bit for bit, wherever its weights want to go from there."""
    grid, (w, h) = parse_scheme(scheme).coded, problem(24, columns)
    assert isinstance(grid, CodedGrid)
    solution = solve(w, h, grid)
    rounded = grid.decode(solution.codes, solution.params)
    relaxed = grid.relax(solution.codes, solution.params, pull(w, rounded, h))
    codes, params = relaxed.rounded()
    assert torch.equal(codes, solution.codes) and params.keys() == solution.params.keys()
    assert all(torch.equal(params[k], v) and params[k].dtype == v.dtype for k, v in solution.params.items())
    weight = relaxed.weight()
    assert torch.allclose(weight, rounded, rtol=1e-5, atol=1e-6 * float(rounded.abs().max()))
    # gradients reach every place that may move, and the scales that a row has for itself
    weight.square().sum().backward()
    assert (relaxed.place.grad != 0).any() and set(relaxed.factors) <= {"scale", "offset"}
    assert bool(relaxed.factors) == (grid.rows == 1)
    assert all((factor.grad != 0).any() for factor in relaxed.factors.values())


def test_nobody_outside_asks_for_a_grids_class():
    """What a grid is like is its own to say: other rooms know `Grid`, `CodedGrid` and the only grids of inputs and
    of caches, `InputGrid` and `CacheGrid`, and name a class to make one."""
    known = 0
    for file in sorted(ROOMS.rglob("*.py")):
        if file.parent.name == "grids":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        made = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            name = getattr(node, "id", getattr(node, "attr", ""))
            if isinstance(node, (ast.Name, ast.Attribute)) and name.endswith("Grid"):
                assert name in ("Grid", "CodedGrid", "InputGrid", "CacheGrid") or id(node) in made, (file, node.lineno)
                known += 1
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass", "type"):
                asked = {getattr(x, "id", getattr(x, "attr", "")) for x in ast.walk(node)}
                assert not any(name.endswith("Grid") for name in asked), (file, node.lineno)
    assert known > 10


@pytest.mark.parametrize("scheme,columns", [case for case in CASES if case[0] in CODED])
def test_stored_parts_are_read_back_into_codes_and_parameters(scheme, columns):
    grid, (w, _) = parse_scheme(scheme).coded, problem(24, columns)
    solution = nearest(w, None, grid)
    codes, params = grid.read_parts(grid.stored_parts(solution.codes, solution.params))
    assert torch.equal(codes, solution.codes) and codes.dtype == torch.uint8
    assert params.keys() == solution.params.keys()
    assert all(torch.equal(params[k], v) and params[k].dtype == v.dtype for k, v in solution.params.items())
