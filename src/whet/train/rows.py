"""The batch of each step from windows of text: whole windows one behind the other in rows, drawn anew every round.

A window is its tokens, int64 `[L]`, each as important as any other; or `[2, L]`, behind them what predicting each token
counts, a whole number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def tokens_of(window: Tensor) -> Tensor:
    """The tokens of a window, int64 `[L]`."""
    return window[0] if window.dim() == 2 else window


def weights_of(window: Tensor) -> Tensor:
    """What predicting what follows each token of a window counts, float32 `[L]`; of a window with numbers nothing where
    it ends."""
    if window.dim() == 1:
        return torch.ones(len(window))
    return F.pad(window[1, 1:].float(), (0, 1))


class PackedRows:
    """A function from step to batch: `input_ids` and `weights [rows, positions]`, weights 0 on padding, which is last.

    windows: of any lengths; rows are as long as the longest. None is cut, and each is seen once
    before any is seen again. tokens: of a batch, about; a row at least. end: the token between windows that share a row
    (None: none). alone: each window is a row by itself, and the batch has its `number [rows]` among them. The batch of
    a step depends on these and on the step alone.
    """

    def __init__(
        self, windows: Sequence[Tensor], tokens: int, seed: int, end: int | None, *, alone: bool = False
    ) -> None:
        self.windows, self.seed, self.end, self.alone = list(windows), seed, end, alone
        self.length = max(window.shape[-1] for window in self.windows)
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
        """The rows of a round, `[length]` each, of windows without weights of their own: windows to be rows by
        themselves from then on."""
        while not self._steps:
            self._round()
        return [self._row(row)[0] for step in self._steps[: self.a_round] for row in step]

    def _round(self) -> None:
        order = torch.randperm(len(self.windows), generator=torch.Generator().manual_seed(self.seed + self._rounds))
        rows: list[list[int]] = []
        left = 0
        for number in order.tolist():
            size = self.windows[number].shape[-1]
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
        length = max(len(ids) for ids, _ in filled)
        ids, weights = torch.zeros(len(filled), length, dtype=torch.int64), torch.zeros(len(filled), length)
        for number, (row, each) in enumerate(filled):
            ids[number, : len(row)], weights[number, : len(row)] = row, each
        numbers = {"number": torch.tensor([row[0] for row in rows])} if self.alone else {}
        return {"input_ids": ids, "weights": weights, **numbers}

    def _row(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        pieces: list[Tensor] = []
        weights: list[Tensor] = []
        for number in numbers:
            window = self.windows[number]
            if pieces and self.end is not None:
                pieces.append(torch.tensor([self.end]))
                weights.append(torch.tensor([1.0 if window.dim() == 1 else 0.0]))
            pieces.append(tokens_of(window))
            weights.append(weights_of(window))
        return torch.cat(pieces), torch.cat(weights)
