"""Asymmetric calibration: the target is the best there is for drifted inputs, and rounding it serves them better."""

from __future__ import annotations

import pytest
import torch

from whet.grids import parse_scheme
from whet.quantize import asymmetric_target, gptq, nearest


def problem(columns: int = 64, tokens: int = 2000, seed: int = 0, drifted: float = 0.2) -> tuple[torch.Tensor, ...]:
    """Weights, the lighter model's inputs, and the original's, from which those have drifted in a few directions."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(24, columns, generator=generator)
    mix = torch.randn(columns, columns, generator=generator)
    before = torch.randn(tokens, columns, generator=generator) @ mix
    turn = torch.randn(columns, 4, generator=generator) @ torch.randn(4, columns, generator=generator) / columns
    return w, before - drifted * before @ turn, before


def moments(x: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.t() @ x / len(x), (before - x).t() @ x / len(x)


@pytest.mark.parametrize("columns", [1, 7, 64])
def test_all_of_the_way_is_least_squares(columns):
    w, x, before = problem(columns)
    target = asymmetric_target(w, *moments(x, before), share=1.0, damp=0.0)
    best = torch.linalg.lstsq(x.double(), (before @ w.t()).double()).solution.t()
    assert (target - best).abs().max() <= 1e-2 * (w - best).abs().max() + 1e-5


def test_a_share_is_part_of_the_way_and_without_drift_there_is_none():
    w, x, before = problem()
    h, drift = moments(x, before)
    whole = asymmetric_target(w, h, drift, share=1.0) - w
    torch.testing.assert_close(asymmetric_target(w, h, drift, share=0.25), w + 0.25 * whole)
    assert torch.equal(asymmetric_target(w, h, drift, share=0.0), w)
    assert torch.equal(asymmetric_target(w, h, torch.zeros_like(h)), w)


@pytest.mark.parametrize("scheme", ["int4-g32", "int2s-g16", "Q4_0", "NVFP4", "fp4m2-g32", "nf4-g32"])
@pytest.mark.parametrize("solve", [nearest, gptq])
def test_rounding_it_loses_less_of_what_the_original_gives(scheme, solve):
    w, x, before = problem(drifted=1.0)
    h, drift = moments(x, before)
    grid, wanted = parse_scheme(scheme), before @ w.t()

    def lost(target: torch.Tensor) -> float:
        solution = solve(target, h, grid)
        return (wanted - x @ grid.decode(solution.codes, solution.params).t()).square().sum().item()

    plain, half, whole = lost(w), lost(asymmetric_target(w, h, drift)), lost(asymmetric_target(w, h, drift, share=1.0))
    assert whole < half < plain


def test_few_tokens_and_dead_inputs_stay_harmless():
    w, x, before = problem(tokens=20)  # fewer than inputs: h is singular
    x[:, 5], before[:, 5] = 0.0, 0.0
    target = asymmetric_target(w, *moments(x, before))
    assert torch.isfinite(target).all() and (target - w).norm() < 2 * w.norm()
    torch.testing.assert_close(target[:, 5], w[:, 5])
    wanted, lost = before @ w.t(), [((before @ w.t()) - x @ q.t()).norm() for q in (w, target)]
    assert lost[1] < lost[0] < wanted.norm()


def test_what_cannot_be_factorised_is_left_as_it_is():
    w, x, before = problem(8)
    assert torch.equal(asymmetric_target(w, -moments(x, before)[0] - torch.eye(8), moments(x, before)[1]), w)
