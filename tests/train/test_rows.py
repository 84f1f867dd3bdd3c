"""Rows: every window whole, once a round, the same whatever was asked for before."""

from __future__ import annotations

import pytest
import torch

from whet.train import PackedRows

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
