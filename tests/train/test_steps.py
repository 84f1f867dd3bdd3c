"""Steps: every batch is seen alike, the best iterate is kept, and only where it is better by more than chance."""

from __future__ import annotations

import pytest
import torch

from whet.train import PIECE, STEP_TOKENS, Judge, adam, descend, in_pieces, steps_of, surely, take_step, usual_steps


def test_steps_take_batches_together_until_they_are_large_and_see_all_of_them_alike():
    small = [100, 900, 30, 500, 2048, 700, 5000]
    steps = list(steps_of(small, 40, seed=1))
    assert steps == list(steps_of(small, 40, seed=1)) != list(steps_of(small, 40, seed=2))
    assert all(len(taken) == 1 or sum(small[i] for i in taken) <= STEP_TOKENS for taken in steps)
    assert any(len(taken) > 2 for taken in steps)
    seen = [number for taken in steps for number in taken]
    rounds = [sorted(seen[i : i + 7]) for i in range(0, len(seen) - 6, 7)]
    assert len(rounds) > 5 and all(one == list(range(7)) for one in rounds)
    assert [usual_steps(tokens) for tokens in (1, 2048, 2049, 8192, 10**6)] == [25, 25, 50, 100, 200]
    assert usual_steps(10**6, 60) == 60


def test_what_is_won_has_to_be_more_than_its_noise():
    assert surely(torch.tensor([1.0, 0.9, 1.1])) and surely(torch.tensor([0.1]))
    assert not surely(torch.tensor([3.0, -1.0, -1.0])) and not surely(torch.tensor([-0.1]))
    assert not surely(torch.zeros(4))
    pieces = in_pieces(torch.arange(2 * 70.0).view(2, 70))
    assert len(pieces) == 2 * 3 and pieces.sum() == 70 * 139 and pieces[0] == sum(range(PIECE))


def descent(looks, losses, start="start"):
    """The judge of a descent whose iterates are numbers of steps, of which each loses what `losses` says."""
    now = 0

    def step(number, taken):
        nonlocal now
        assert number == taken == now
        now = number + 1

    judge = Judge(lambda: losses[now], lambda: now, start, looks)
    descend(range(len(losses) - 1), step, judge)
    return judge


def test_the_best_of_the_iterates_that_were_looked_at_is_kept():
    losses = [torch.tensor([x, x + 0.1], dtype=torch.float64) for x in (9.0, 7.0, 1.0, 5.0, 6.0)]
    kept = [descent(looks, losses).kept()[0] for looks in ({1, 3, 4}, {4}, {1, 2}, range(9), ())]
    assert kept == [3, 4, 2, 2, "start"]
    judge = descent({3}, losses)
    assert judge.helped and torch.equal(judge.kept()[1], losses[3]) and torch.equal(judge.first, losses[0])


@pytest.mark.parametrize("last", [[9.0, 9.0, 9.0], [0.0, 13.0, 13.9], [9.0, 8.0, 8.0], [torch.nan] * 3])
def test_the_start_stays_where_nothing_is_better_by_more_than_chance(last):
    first = torch.tensor([9.0, 9.0, 9.0], dtype=torch.float64)
    judge = descent({1}, [first, torch.tensor(last, dtype=torch.float64)])
    sure = last == [9.0, 8.0, 8.0]
    assert judge.helped is sure and judge.kept()[0] == (1 if sure else "start")
    assert torch.equal(judge.kept()[1], torch.tensor(last) if sure else first)


def test_a_descent_that_goes_on_counts_on_and_needs_no_judge():
    told = []
    descend("abc", lambda number, taken: told.append((number, taken)), first=5)
    assert told == [(5, "a"), (6, "b"), (7, "c")]


def test_rates_fall_along_a_line_each_from_its_own():
    """Adam's first step is of the size of the rate, whatever the gradient."""
    one, two = (torch.zeros(3, requires_grad=True) for _ in range(2))
    for done, left in ((0.0, 1.0), (0.25, 0.75)):
        with torch.no_grad():
            one.zero_(), two.zero_()
        optimizer = adam([([one], 0.1), ([two], 0.02)])
        (5 * one.sum() - two.sum() / 7).backward()
        take_step(optimizer, done)
        assert one.tolist() == pytest.approx([-0.1 * left] * 3) and two.tolist() == pytest.approx([0.02 * left] * 3)
        optimizer.zero_grad()
