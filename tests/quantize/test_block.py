"""Block rounding: starts are themselves, training helps on every grid and never harms, and the metric is heeded."""

from __future__ import annotations

import pytest
import torch

from covering import matrix, some
from schemes import CODED
from whet.checkpoint.modeling_whet import decode
from whet.grids import IntegerGrid, parse_scheme
from whet.quantize import Start, gptq, nearest, pull, round_block
from whet.train import PIECE


class Toy:
    """`x + W₂ silu(W₁ x)` with an input that was disturbed: weights by name, a forward, what it should give."""

    def __init__(self, wide: bool = False, seed: int = 0, batches: int = 3) -> None:
        chance = torch.Generator().manual_seed(seed)
        hidden, middle = (256, 256) if wide else (40, 48)
        self.w = {
            "up": torch.randn(middle, hidden, generator=chance) / hidden**0.5,
            "down": torch.randn(hidden, middle, generator=chance) / middle**0.5,
        }
        mix = torch.randn(hidden, hidden, generator=chance) / hidden**0.5
        self.x = [torch.randn(2, 40, hidden, generator=chance) @ mix for _ in range(batches)]
        self.wanted = [self.block(self.w, x) for x in self.x]
        self.x = [x + 0.05 * torch.randn(x.shape, generator=chance) for x in self.x]

    @property
    def sizes(self):
        return [x.shape[0] * x.shape[1] for x in self.x]

    @staticmethod
    def block(w, x):
        return x + torch.nn.functional.silu(x @ w["up"].t()) @ w["down"].t()

    def forward(self, weights, batch):
        return self.block({**self.w, **weights}, self.x[batch])

    def moments(self):
        x = torch.cat([x.flatten(0, 1) for x in self.x])
        middle = torch.nn.functional.silu(x @ self.w["up"].t())
        return {"up": x.t() @ x / len(x), "down": middle.t() @ middle / len(x)}

    def starts(self, grid, solver=gptq, mask=None):
        found = {}
        for name, h in self.moments().items():
            solution = solver(self.w[name], h, grid, None if mask is None else mask[name])
            rounded = grid.decode(solution.codes, solution.params)
            found[name] = Start(solution, grid, pull(self.w[name], rounded, h), None if mask is None else mask[name])
        return found

    def loss(self, solutions, grid, metric=None):
        w = {name: grid.decode(s.codes, s.params) for name, s in solutions.items()}
        total = 0.0
        for batch, wanted in enumerate(self.wanted):
            error = (self.forward(w, batch) - wanted).flatten(0, 1).double()
            total += float((error @ (torch.eye(error.shape[1]) if metric is None else metric).double() * error).sum())
        return total


def scheme(name):
    grid = parse_scheme(name)
    return grid, Toy(wide=grid.multiple > 48)


@matrix({"solver": [nearest, gptq], "name": some(CODED, 2)}, strength=1)
def test_training_a_block_helps_on_every_grid_and_says_what_it_lost(name, solver):
    grid, toy = scheme(name)
    starts = toy.starts(grid, solver)
    trained = round_block(starts, toy.forward, lambda i: toy.wanted[i], toy.sizes, steps=60)
    before = toy.loss({name: start.solution for name, start in starts.items()}, grid)
    after = toy.loss(trained.solutions, grid)
    energy = sum(float(wanted.double().square().sum()) for wanted in toy.wanted)
    assert trained.before == pytest.approx(before / energy, rel=1e-3)
    assert trained.after == pytest.approx(after / energy, rel=1e-3)
    assert after < before
    for name, start in starts.items():
        found = trained.solutions[name]
        assert found.codes.dtype == torch.uint8 and int(found.codes.max()) < 2**grid.bits
        assert {k: (v.dtype, v.shape) for k, v in found.params.items()} == {
            k: (v.dtype, v.shape) for k, v in start.solution.params.items()
        }
        # and it is what a file holds
        parts = grid.stored_parts(found.codes, found.params)
        read = decode(parts, grid.table_entry("float32"), torch.float32)
        assert torch.equal(read, grid.decode(found.codes, found.params))


def test_nothing_is_ever_worse_than_the_start():
    """Steps so large that they only harm: what comes back is the start, bit for bit."""
    grid, toy = scheme("int3-g16")
    starts = toy.starts(grid)
    trained = round_block(starts, toy.forward, lambda i: toy.wanted[i], toy.sizes, steps=2, rate=5.0)
    assert trained.after == trained.before
    for name, start in starts.items():
        assert torch.equal(trained.solutions[name].codes, start.solution.codes)
        assert all(torch.equal(trained.solutions[name].params[k], v) for k, v in start.solution.params.items())


def test_a_block_without_loss_or_error_stays_as_it_is():
    toy = Toy()
    grid = IntegerGrid(8, 0, "none", torch.float32)
    for w in toy.w.values():
        w.zero_()
    starts = toy.starts(grid)
    exact = [x.clone() for x in toy.x]
    trained = round_block(starts, toy.forward, lambda i: exact[i], toy.sizes, steps=5)
    assert trained.before == trained.after == 0
    assert all(torch.equal(trained.solutions[n].codes, s.solution.codes) for n, s in starts.items())


def test_the_same_seed_gives_the_same_and_another_does_not():
    grid, toy = scheme("int2-g16")
    codes = [
        round_block(toy.starts(grid), toy.forward, lambda i: toy.wanted[i], [2048] * 3, steps=20, seed=seed)
        .solutions["up"]
        .codes
        for seed in (1, 1, 2)
    ]
    assert torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[0], codes[2])


def test_errors_go_where_the_metric_says_that_they_cost_little():
    """A few outputs matter much and the others little; of one toy alone a start may be the best that is found."""
    grid = parse_scheme("int2-g16")
    metric = torch.diag(torch.cat([torch.full((5,), 7.65), torch.full((35,), 0.05)]))
    lost = torch.zeros(2, 2)  # trained without the metric and with it, by the metric and by the plain square
    for seed in range(4):
        toy = Toy(seed=seed)
        for trained, heeded in enumerate((None, metric)):
            found = round_block(
                toy.starts(grid), toy.forward, lambda i, t=toy: t.wanted[i], toy.sizes, heeded, steps=60
            )
            lost[trained] += torch.tensor([toy.loss(found.solutions, grid, by) for by in (metric, None)])
    assert lost[1, 0] < lost[0, 0] and lost[0, 1] < lost[1, 1]


def test_masked_weights_stay_zero():
    grid, toy = scheme("int3-g16")
    chance = torch.Generator().manual_seed(5)
    mask = {name: torch.rand(w.shape, generator=chance) > 0.5 for name, w in toy.w.items()}
    starts = toy.starts(grid, mask=mask)
    trained = round_block(starts, toy.forward, lambda i: toy.wanted[i], toy.sizes, steps=60)
    assert trained.after < trained.before
    for name, found in trained.solutions.items():
        assert (grid.decode(found.codes, found.params)[~mask[name]] == 0).all()
    after = toy.loss(trained.solutions, grid) / sum(float(w.double().square().sum()) for w in toy.wanted)
    assert trained.after == pytest.approx(after, rel=1e-3)


def test_gradients_reach_places_and_scales_as_finite_differences_do():
    """With codes held, a scale's factor moves the weight as the values of its codes say."""
    grid, toy = scheme("int4-g16")
    start = toy.starts(grid)["up"]
    relaxed = start.relaxed()
    direction = torch.randn(start.solution.codes.shape, generator=torch.Generator().manual_seed(3))
    (relaxed.weight() * direction).sum().backward()
    rounded = grid.decode(start.solution.codes, start.solution.params)
    by_group = torch.nn.functional.pad(rounded * direction, (0, 8)).unflatten(1, (3, 16)).sum(-1)
    assert torch.allclose(relaxed.factors["scale"].grad, by_group, rtol=1e-3, atol=1e-4)
    steps = start.solution.params["scale"].float().abs().repeat_interleave(16, 1)[:, :40]
    assert torch.allclose(relaxed.place.grad.flatten(1)[:, :40], direction * steps, rtol=1e-4, atol=1e-6)


def test_other_text_judges_the_iterates():
    """What only harms on the judges' text is not kept, however much it helps on the text that is trained on."""
    grid, toy = scheme("int3-g16")
    sizes, starts = toy.sizes[:2], toy.starts(grid)
    rounded = {name: grid.decode(s.solution.codes, s.solution.params) for name, s in starts.items()}
    wanted = [*toy.wanted[:2], toy.forward(rounded, 2)]  # the third batch wants the start itself
    judged = round_block(starts, toy.forward, lambda i: wanted[i], sizes, judges=[2], steps=30)
    assert judged.before == judged.after == pytest.approx(0, abs=1e-9)
    crude = toy.starts(grid, nearest)
    trained = round_block(crude, toy.forward, lambda i: toy.wanted[i], sizes, judges=[2], steps=60)
    assert trained.after < 0.97 * trained.before


def test_a_start_stays_where_an_iterate_is_better_on_one_piece_alone():
    grid, toy = scheme("int3-g16")
    sizes, starts = toy.sizes[:2], toy.starts(grid, nearest)
    trained = round_block(starts, toy.forward, lambda i: toy.wanted[i], sizes, judges=[2], steps=60)
    assert trained.after < trained.before

    def given(solutions):
        return toy.forward({name: grid.decode(s.codes, s.params) for name, s in solutions.items()}, 2)

    start, end = given({name: s.solution for name, s in starts.items()}), given(trained.solutions)
    wanted = start.clone()  # everywhere but in the first piece, which wants to go on where training went
    wanted[0, :PIECE] += 5 * (end - start)[0, :PIECE]
    assert (end - wanted).square().sum() < (start - wanted).square().sum()
    stayed = round_block(
        starts, toy.forward, lambda i: wanted if i == 2 else toy.wanted[i], sizes, judges=[2], steps=60
    )
    assert stayed.after == stayed.before > 0
    assert all(torch.equal(stayed.solutions[name].codes, s.solution.codes) for name, s in starts.items())
