"""What goes of blocks that may differ: the cheapest for what it frees, never the attention that caches are read by."""

from __future__ import annotations

import itertools

import pytest

from whet.pruning.allocation import Allocation, Move, by_unit, layers_left

WHOLE = [(64, 4)] * 4
PRICES = [(8.0, 5.0), (1.0, 9.0), (4.0, 0.1), (2.0, 3.0)]  # of a block's channels and heads, each all of them


def size(_index, amounts):
    channels, heads = amounts
    return 6 * channels * bool(channels) + 48 * heads + 2 * bool(channels) + 2 * bool(heads)


def loss(amounts):
    """Dearer the more is gone already."""
    total = 0.0
    for mine, price, whole in zip(amounts, PRICES, WHOLE, strict=True):
        total += sum(p * (1 - n / w) ** 2 for n, p, w in zip(mine, price, whole, strict=True))
    return total


def losses(amounts, moves):
    after = []
    for move in moves:
        changed = list(amounts)
        changed[move.index] = move.amounts
        after.append(loss(changed))
    return loss(amounts), after


def taken(units, goal, kinds=("a",) * 4):
    allocation = Allocation(WHOLE, units, 4, size, kinds)
    allocation.take(goal, losses)
    return allocation


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4])
def test_it_takes_what_was_asked_for_and_where_it_costs_least(share):
    whole = sum(size(0, mine) for mine in WHOLE)
    allocation = taken(("channels", "heads", "attention", "ffn", "layers"), share * whole)
    assert abs(allocation.gone - share * whole) <= 24 / 2 + 1
    even = [(round(64 * (1 - share)), 4 * (1 - share))] * 4
    assert loss(allocation.amounts) < loss(even)
    assert [one.gone for one in allocation.rounds] == sorted(one.gone for one in allocation.rounds)


def test_the_first_block_of_every_kind_keeps_its_attention():
    cheap = taken(("attention",), 2 * 194)
    assert [heads for _, heads in cheap.amounts] == [4, 4, 0, 0]  # block 0 must stay, and block 1 is the dearest
    kinds = taken(("attention",), 2 * 194, ("a", "a", "b", "a"))
    assert kinds.amounts[2][1] == 4 and kinds.amounts[0][1] == 4
    whole = taken(("layers",), size(0, WHOLE[0]), ("a", "b", "a", "b"))
    assert len(layers_left(whole.amounts)) == 3


def test_least_and_most_bound_what_can_go():
    narrow = Allocation(WHOLE, ("channels",), 4, size, ("a",) * 4)
    assert narrow.finest == 24 and narrow.most == 4 * 48 * 6
    assert Allocation(WHOLE, ("attention", "ffn"), 4, size, ("a",) * 4).finest == 194


def test_the_most_is_what_the_smallest_model_that_may_be_leaves():
    """Against every model whose blocks have the fewest of one unit or the other."""
    every = ("channels", "heads", "attention", "ffn", "layers")
    for kinds in (("a",) * 4, ("a", "b", "a", "b"), ("a", "b", "b", "a")):
        for units in (every, ("attention",), ("layers",), ("ffn", "attention"), ("channels", "attention")):
            allocation = Allocation(WHOLE, units, 4, size, kinds)
            smallest = []
            for amounts in itertools.product(*(allocation._least(index) for index in range(4))):
                allocation.amounts = list(amounts)
                if allocation._may(Move(0, amounts[0], 0)):
                    smallest.append(sum(size(0, one) for one in amounts))
            assert allocation.most == allocation.total - min(smallest), (kinds, units)


def test_blocks_that_lost_nothing_are_not_named():
    amounts = [(64, 4), (32, 4), (0, 2), (0, 0)]
    assert by_unit(amounts, WHOLE) == {"channels": {1: 32, 2: 0}, "heads": {2: 2}}
    assert layers_left(amounts) == (0, 1, 2)
