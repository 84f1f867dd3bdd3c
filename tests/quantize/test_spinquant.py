"""Learned rotations: they stay rotations, lose less by their own measure, and by what GPTQ then loses."""

from __future__ import annotations

import pytest
import torch

from whet.grids import parse_scheme
from whet.quantize import Turned, gptq, pivots, random_hadamard, spinquant


def correlated(seed: int, size: int) -> torch.Tensor:
    """The second moment of inputs of which a few directions carry most."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2000, size, generator=generator, dtype=torch.float64) * torch.logspace(1, -1, size)
    x = x @ torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    return x.t() @ x / len(x)


def model(scheme: str = "int3-g16", seed: int = 0) -> tuple[list[list[Turned]], dict[str, torch.Tensor]]:
    """Two blocks of a reader, values, and writers of the stream; heads of 8 channels, four of them."""
    generator = torch.Generator().manual_seed(seed)
    grid = parse_scheme(scheme)

    def weights(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64)

    blocks = [
        [
            Turned(weights(48, 64), correlated(index, 64), grid, None, "stream"),
            Turned(weights(32, 64), correlated(index, 64), grid, f"v{index}", "stream"),
            Turned(weights(64, 32), correlated(9 + index, 32), grid, "stream", f"v{index}"),
            Turned(weights(64, 48), pivots(correlated(5 + index, 48)), grid, "stream", None),
        ]
        for index in range(2)
    ]
    start = {"stream": random_hadamard(64, seed), **{f"v{i}": random_hadamard(8, seed + i) for i in range(2)}}
    return blocks, start


def total(blocks, rotations) -> float:
    return sum(one.loss(rotations).item() for block in blocks for one in block)


@pytest.mark.parametrize("scheme", ["int3-g16", "int4s-g32", "int8s", "Q4_0", "nf4-g16", "MXFP4"])
def test_what_is_learned_are_rotations_that_lose_less(scheme):
    blocks, start = model(scheme)
    steps = []
    found = spinquant(blocks.__getitem__, 2, start, seed=0, steps=120, on_step=lambda: steps.append(1))
    assert len(steps) == 120 and found.keys() == start.keys()
    for name, basis in found.items():
        eye = torch.eye(len(basis), dtype=torch.float64)
        assert torch.allclose(basis @ basis.t(), eye, atol=1e-10)
        assert not torch.allclose(basis, start[name], atol=1e-3)
    assert total(blocks, found) < 0.9 * total(blocks, start)


def test_the_same_seed_learns_the_same():
    blocks, start = model()
    one, two, other = (spinquant(blocks.__getitem__, 2, start, seed=s, steps=9) for s in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["stream"], other["stream"])


def test_gptq_loses_less_too():
    blocks, start = model()
    found = spinquant(blocks.__getitem__, 2, start, seed=0, steps=200)

    def lost(basis: torch.Tensor) -> float:
        reader = blocks[0][0]
        w, h = (reader.w @ basis).float(), (basis.t() @ reader.h @ basis).float()
        solution = gptq(w, h, reader.grid)
        error = reader.grid.decode(solution.codes, solution.params) - w
        return ((error @ h) * error).sum().item()

    assert lost(found["stream"]) < 0.9 * lost(start["stream"])


def test_pivots_are_variances_given_what_comes_after():
    h = correlated(0, 6)
    found = pivots(h)
    damped = h + 0.01 * h.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    for column in range(6):
        rest = damped[column:, column:]
        assert found[column].item() == pytest.approx(1 / torch.linalg.inv(rest)[0, 0].item(), rel=1e-9)
    assert found.log().sum().item() == pytest.approx(torch.logdet(damped).item(), rel=1e-9)
    # inputs that never vary, and one that is always 0
    assert torch.isfinite(pivots(torch.ones(4, 4, dtype=torch.float64))).all()
    assert torch.isfinite(pivots(torch.zeros(4, 4, dtype=torch.float64))).all()


def test_what_loses_nothing_turns_nothing():
    """Weights of 0 have no slope; the other rotations are learned all the same."""
    blocks, start = model()
    blocks = [[Turned(0 * one.w, one.h, one.grid, one.rows, one.columns) for one in block] for block in blocks]
    found = spinquant(blocks.__getitem__, 2, start, seed=0, steps=3)
    assert all(torch.equal(found[name], start[name]) for name in start)
