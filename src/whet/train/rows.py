"""The batch of each step from windows of text: whole windows one behind the other in rows, drawn anew every round."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class PackedRows:
    """A function from step to batch: `input_ids` and `weights [rows, positions]`, weights 0 on padding, which is last.

    windows: int64 `[length]` each, of any lengths; rows are as long as the longest. None is cut, and each is seen once
    before any is seen again. tokens: of a batch, about; a row at least. end: the token between windows that share a row
    (None: none). alone: each window is a row by itself, and the batch has its `number [rows]` among them. The batch of
    a step depends on these and on the step alone.
    """

    def __init__(
        self, windows: Sequence[Tensor], tokens: int, seed: int, end: int | None, *, alone: bool = False
    ) -> None:
        self.windows, self.seed, self.end, self.alone = list(windows), seed, end, alone
        self.length = max(map(len, self.windows))
        self.rows = max(1, tokens // self.length)
        self._steps: list[list[list[int]]] = []  # by step its rows, as numbers of windows
        self._rounds = 0

    def __call__(self, step: int) -> dict[str, Tensor]:
        """The batch of a step."""
        while len(self._steps) <= step:
            self._round()
        return self._batch(self._steps[step])

    @property
    def a_round(self) -> int:
        """Steps in which every window is seen once, about."""
        if not self._steps:
            self._round()
        return max(1, len(self._steps) // self._rounds)

    def packed(self) -> list[Tensor]:
        """The rows of a round, `[length]` each: windows to be rows by themselves from then on."""
        while not self._steps:
            self._round()
        return [self._row(row) for step in self._steps[: self.a_round] for row in step]

    def _round(self) -> None:
        order = torch.randperm(len(self.windows), generator=torch.Generator().manual_seed(self.seed + self._rounds))
        rows: list[list[int]] = []
        left = 0
        for number in order.tolist():
            size = len(self.windows[number])
            if self.alone or not rows or size + (self.end is not None) > left:
                rows.append([])
                left = self.length
            else:
                left -= self.end is not None
            rows[-1].append(number)
            left -= size
        self._steps += [rows[start : start + self.rows] for start in range(0, len(rows), self.rows)]
        self._rounds += 1

    def _batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        filled = [self._row(row) for row in rows]
        length = max(map(len, filled))
        ids, weights = torch.zeros(len(filled), length, dtype=torch.int64), torch.zeros(len(filled), length)
        for number, row in enumerate(filled):
            ids[number, : len(row)], weights[number, : len(row)] = row, 1.0
        numbers = {"number": torch.tensor([row[0] for row in rows])} if self.alone else {}
        return {"input_ids": ids, "weights": weights, **numbers}

    def _row(self, numbers: Sequence[int]) -> Tensor:
        pieces: list[Tensor] = []
        for number in numbers:
            if pieces and self.end is not None:
                pieces.append(torch.tensor([self.end]))
            pieces.append(self.windows[number])
        return torch.cat(pieces)
