"""What is learnt from a few rows and some positions kept apart holds on other text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whet.grids import parse_scheme
from whet.quantize.gptq import gptq
from whet.scores import Seen, gains, linear_losses, pivots

GRID = parse_scheme("int3-g64")


class World:
    """Text whose inputs come in two kinds, and outputs whose gradients are `louder` times as large on the second."""

    def __init__(self, columns: int, louder: float) -> None:
        self.chance = torch.Generator().manual_seed(0)
        self.mixing = torch.randn(2, columns, columns, generator=self.chance) / columns**0.5
        self.w = torch.randn(80, columns, generator=self.chance)
        self.size = torch.rand(80, generator=self.chance) + 0.1
        self.louder = louder

    def text(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Inputs `[tokens, in]` and gradients `[tokens, out]`."""
        kind = (torch.rand(tokens, generator=self.chance) < 0.3).long()
        x = torch.randn(tokens, self.w.shape[1], generator=self.chance)
        x = torch.where(kind[:, None] == 1, x @ self.mixing[1], x @ self.mixing[0])
        g = torch.randn(tokens, len(self.w), generator=self.chance) * self.size
        return x, g * torch.where(kind == 1, self.louder, 1.0)[:, None]

    def lost(self, h: Tensor) -> float:
        """½ E[Σ_r (g_r e_r x)²] on much other text, solved by `h`."""
        solution = gptq(self.w, h, GRID)
        e = self.w - GRID.decode(solution.codes, solution.params)
        x, g = self.text(40_000)
        return 0.5 * float((((x @ e.t()) * g).square()).sum(1).mean())


@pytest.mark.parametrize(("columns", "tokens", "louder"), [(64, 4000, 1.0), (64, 4000, 5.0), (256, 1024, 1.0)])
def test_predictions_hold_on_other_text(columns: int, tokens: int, louder: float) -> None:
    world = World(columns, louder)
    x, g = world.text(tokens)
    h, slopes, half = x.t() @ x / tokens, g.square().mean(0), tokens // 2
    seen = Seen(x[:half], [g[:half]], x[half:].t() @ x[half:] / half, half, tokens)
    (gain,) = gains([world.w], h, pivots(h), [slopes], seen)
    (blind,) = gains([world.w], h, pivots(h), [slopes])
    truth = world.lost(h)
    told, unseen = (linear_losses(world.w, pivots(h), slopes, [GRID], known)[0] for known in (gain, blind))
    assert told == pytest.approx(truth, rel=0.2)
    if louder == 1.0 and columns == 64:
        assert unseen == pytest.approx(truth, rel=0.2)  # nothing to correct
    else:
        assert abs(unseen / truth - 1) > 0.2


def test_linears_that_share_an_input_are_told_apart() -> None:
    """Two linears of one input: the gradients of the first go with it, those of the second do not."""
    world = World(64, 5.0)
    x, g = world.text(4000)
    plain = torch.randn(g.shape, generator=world.chance)
    h = x.t() @ x / len(x)
    seen = Seen(x[:2000], [g[:2000], plain[:2000]], h, 2000, 4000)
    slopes = [g.square().mean(0), plain.square().mean(0)]
    weights = [world.w, world.w.flip(0)]
    told, blind = gains(weights, h, pivots(h), slopes, seen), gains(weights, h, pivots(h), slopes)
    dependent, independent = (one[3] / other[3] for one, other in zip(told, blind, strict=True))
    assert independent == pytest.approx(1, abs=0.1) and abs(dependent - 1) > 0.2
