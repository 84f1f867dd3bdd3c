"""Muon: updates nearly orthogonal, of AdamW's size, the same whether shapes are batched or not."""

from __future__ import annotations

import pytest
import torch

from whet.train import Muon
from whet.train.muon import orthogonalized


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16), (3, 16, 24)])
def test_singular_values_are_near_one(shape: tuple[int, ...]) -> None:
    update = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalized(update))
    assert values.min() > 0.3 and values.max() < 1.35


def test_directions_are_kept() -> None:
    """For U S V^T the result is near U V^T."""
    update = torch.randn(24, 48, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(update, full_matrices=False)
    near = orthogonalized(update)
    assert torch.nn.functional.cosine_similarity((u @ v).flatten(), near.flatten(), dim=0) > 0.95


def test_a_step_has_the_size_of_adamw() -> None:
    weight = torch.nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    Muon([weight], lr=1e-2).step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.2 * 1e-2, rel=0.2)


def test_equal_shapes_do_not_mix() -> None:
    rng = torch.Generator().manual_seed(3)
    grads = [torch.randn(8, 12, generator=rng) for _ in range(2)]
    together = [torch.nn.Parameter(torch.zeros(8, 12)) for _ in grads]
    for weight, grad in zip(together, grads, strict=True):
        weight.grad = grad
    Muon(together, lr=1.0).step()
    for weight, grad in zip(together, grads, strict=True):
        alone = torch.nn.Parameter(torch.zeros(8, 12))
        alone.grad = grad
        Muon([alone], lr=1.0).step()
        assert torch.allclose(alone, weight, atol=0.02)
