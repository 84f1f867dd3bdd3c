"""Rows: every window whole, once a round, the same whatever was asked for before."""

from __future__ import annotations

import pytest
import torch

from whet.train import PackedRows, tokens_of, weights_of

WINDOWS = [torch.full((length,), number + 10) for number, length in enumerate([3, 16, 5, 5, 2, 9, 7, 1, 16, 4])]


@pytest.mark.parametrize("end", [None, 1])
def test_every_window_is_whole_and_seen_once_a_round(end):
    rows = PackedRows(WINDOWS, 32, seed=3, end=end)
    seen = []
    for step in range(rows.a_round):
        batch = rows(step)
        assert batch["input_ids"].shape == batch["weights"].shape and batch["input_ids"].shape[0] <= 2
        for ids, weights in zip(batch["input_ids"], batch["weights"], strict=True):
            real = ids[weights > 0]
            assert torch.equal(real, ids[: len(real)]) and len(real) <= 16
            inside = [token for token in real.unique_consecutive().tolist() if token != end]
            assert all((real == token).sum() == len(WINDOWS[token - 10]) for token in inside)
            assert (real == 1).sum() == (0 if end is None else len(inside) - 1)
            seen += inside
    assert sorted(seen) == [10 + number for number in range(len(WINDOWS))]


def test_a_batch_depends_on_its_step_alone():
    one, other = (PackedRows(WINDOWS, 32, seed=3, end=1) for _ in range(2))
    late = other(25)
    for step in range(26):
        found = one(step)
    assert all(torch.equal(found[name], late[name]) for name in found)
    assert any(
        not torch.equal(PackedRows(WINDOWS, 32, seed=4, end=1)(step)["input_ids"], one(step)["input_ids"])
        for step in range(3)
    )


def test_a_window_may_say_what_each_of_its_tokens_counts():
    windows = [torch.tensor([[7, 8, 9], [1, 1, 30]]), torch.tensor([[5, 6, 4, 3], [1, 10, 1, 2]])]
    batch = PackedRows(windows, 8, seed=0, end=1)(0)
    found = {}
    for ids, weights in zip(batch["input_ids"].tolist(), batch["weights"].tolist(), strict=True):
        found |= dict(zip(ids, weights, strict=True))
    # of the token after each; nothing at the end of a window, between two, and in padding
    assert found == {7: 1, 8: 30, 9: 0, 5: 10, 6: 1, 4: 2, 3: 0} | {token: 0 for token in (0, 1) if token in found}
    assert torch.equal(tokens_of(windows[0]), windows[0][0]) and torch.equal(weights_of(windows[0][0]), torch.ones(3))
