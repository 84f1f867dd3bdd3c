"""What remains makes up for what was taken: the optimum under the mask, row by row."""

from __future__ import annotations

import itertools

import pytest
import torch

from whet.quantize import ROUGH, reconstruct


def problem(rows=24, columns=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(500, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    w = torch.randn(rows, columns, generator=generator)
    mask = torch.rand(rows, columns, generator=generator) < 0.5
    return w, x.t() @ x / 500, mask


def damped(h):
    return h + 0.01 * h.diagonal().mean() * torch.eye(len(h))


def loss(w, q, h):
    return ((w - q) @ h * (w - q)).sum(1)


def optimum(w, h, mask):
    q = torch.zeros_like(w, dtype=torch.float64)
    for row in range(len(w)):
        kept = mask[row].nonzero()[:, 0]
        q[row, kept] = torch.linalg.solve(h.double()[kept][:, kept], (w.double() @ h.double())[row, kept])
    return q.float()


@pytest.mark.parametrize("seed", range(3))
def test_it_comes_to_the_optimum_of_every_row(seed):
    w, h, mask = problem(seed=seed)
    q = reconstruct(w, h, mask)
    assert not q[~mask].any()
    h = damped(h)
    best, found = loss(w, optimum(w, h, mask), h), loss(w, q, h)
    assert (found >= best * (1 - 1e-4)).all() and found.sum() < 1.02 * best.sum()
    assert found.sum() < 0.7 * loss(w, w * mask, h).sum()


def test_more_steps_never_lose_more_and_a_start_is_gone_on_from():
    w, h, mask = problem()
    lost = [loss(w, reconstruct(w, h, mask, steps=n), damped(h)) for n in range(0, 12, 2)]
    assert torch.equal(reconstruct(w, h, mask, steps=0), torch.where(mask, w, 0.0))
    assert all((after <= before * (1 + 1e-4)).all() for before, after in itertools.pairwise(lost))
    begun = reconstruct(w, h, mask, steps=ROUGH)
    assert loss(w, reconstruct(w, h, mask, begun, steps=2), damped(h)).sum() < lost[1].sum()


def test_a_row_does_not_see_its_neighbours():
    w, h, mask = problem()
    other = w.clone()
    other[5:] *= 3
    # a product of other rows may be summed in another order
    torch.testing.assert_close(reconstruct(other, h, mask, steps=6)[:5], reconstruct(w, h, mask, steps=6)[:5])


@pytest.mark.parametrize("case", ["few tokens", "dead inputs", "no inputs", "nothing kept", "everything kept", "zeros"])
def test_odd_problems_stay_harmless(case):
    w, h, mask = problem()
    if case == "few tokens":
        x = torch.randn(3, 48, generator=torch.Generator().manual_seed(1))
        h = x.t() @ x / 3
    elif case == "dead inputs":
        h[::5], h[:, ::5] = 0, 0
    elif case == "no inputs":
        h = torch.zeros_like(h)
    elif case == "nothing kept":
        mask[4] = False
    elif case == "everything kept":
        mask[:] = True
    else:
        w[2] = 0
    q = reconstruct(w, h, mask)
    assert torch.isfinite(q).all() and not q[~mask].any()
    if case == "everything kept":
        assert torch.equal(q, w)
    if case == "dead inputs":
        assert torch.equal(q[:, ::5], torch.where(mask, w, 0.0)[:, ::5])
