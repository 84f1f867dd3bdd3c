"""Embedding and head: what a rounded table is predicted to cost is what its logits and its lookups do cost."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from scoring_material import kl
from whet.grids import parse_scheme
from whet.scores import TableUse, table_losses, tied_metric

SCHEMES = [parse_scheme(name) for name in ("int3-g32", "int4-g32", "int5s-g32")]
VOCABULARY, WIDTH = 600, 32


@pytest.fixture
def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def w(chance: torch.Generator) -> Tensor:
    return torch.randn(VOCABULARY, WIDTH, generator=chance)


@pytest.fixture
def states(w: Tensor, chance: torch.Generator) -> Tensor:
    """Hidden states that lean towards the word they predict."""
    words = torch.randint(VOCABULARY, (1500,), generator=chance)
    return 0.15 * w[words] + 0.1 * torch.randn(1500, WIDTH, generator=chance) + 0.3


def head(w: Tensor, states: Tensor, bound: float | None = None) -> TableUse:
    hidden = states.t() @ states / len(states)
    use = TableUse(hidden=hidden, metric=tied_metric(hidden), states=states, bound=bound)
    logits, slope = use.logits(states, w)
    p = logits.softmax(-1)
    bend = p * (1 - p) * (1 if slope is None else slope.square())
    return dataclasses.replace(use, read=bend.mean(0))


@pytest.mark.parametrize("bound", [None, 6.0])
def test_a_head_costs_what_its_logits_do(
    w: Tensor, states: Tensor, bound: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use = head(w, states, bound)

    def logits(table: Tensor) -> Tensor:
        z = states @ table.t()
        return z if bound is None else bound * torch.tanh(z / bound)

    measured = [float(kl(logits(w), logits(w - use.solved(w, grid))).mean()) for grid in SCHEMES]
    monkeypatch.setattr("whet.scores.tables._CHUNK", 128)
    told = table_losses(w, use, SCHEMES)
    assert told == pytest.approx(measured, rel=0.2)
    blind = table_losses(w, dataclasses.replace(use, states=None), SCHEMES)
    assert all(abs(b / m - 1) > abs(t / m - 1) for b, t, m in zip(blind, told, measured, strict=True))


def test_lookups_cost_what_their_own_gradients_say(w: Tensor, chance: torch.Generator) -> None:
    """Common words have long rows and small gradients, rare ones short rows and large gradients."""
    w = w * (2 - 1.8 * torch.arange(VOCABULARY) / VOCABULARY)[:, None]
    tokens = (torch.rand(6000, generator=chance).square() * VOCABULARY).long()
    loud = 0.1 + tokens / VOCABULARY
    slopes = torch.randn(6000, WIDTH, generator=chance) * loud[:, None]
    looked = torch.bincount(tokens, minlength=VOCABULARY) / len(tokens)
    use = TableUse(looked=looked, gradient=slopes.t() @ slopes / len(slopes), tokens=tokens, slopes=slopes)
    errors = [use.solved(w, grid)[tokens] for grid in SCHEMES]
    measured = [0.5 * float((e * slopes).sum(1).square().mean()) for e in errors]
    assert table_losses(w, use, SCHEMES) == pytest.approx(measured, rel=0.15)
    blind = table_losses(w, dataclasses.replace(use, slopes=None, tokens=None), SCHEMES)
    assert all(abs(b / m - 1) > 0.3 for b, m in zip(blind, measured, strict=True))


def test_a_table_is_charged_for_both_uses(w: Tensor, chance: torch.Generator) -> None:
    looked, read = torch.rand(VOCABULARY, generator=chance), torch.rand(VOCABULARY, generator=chance)
    eye = torch.eye(WIDTH)
    looks = TableUse(looked=looked, gradient=eye)
    reads = TableUse(read=read, hidden=eye)
    both = TableUse(looked, eye, read, eye)
    for first, second, third in zip(*(table_losses(w, use, SCHEMES) for use in (looks, reads, both)), strict=True):
        assert third == pytest.approx(first + second, rel=1e-4)
