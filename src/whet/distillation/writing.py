"""Text that a student writes, to learn on: by itself, or with the teacher stepping in (SWITCH)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whet.distillation.halves import Halves
from whet.distillation.logits import log_chances
from whet.engines.sampling import sample

TOP_P = 0.95


@dataclass(frozen=True)
class Written:
    """What was written after prompts of one length.

    ids `[rows, positions]` with the prompts, and `weights` of the same shape: 1 where a written token is predicted.
    entropy: of the student there, the mean. lengths: tokens that each row has. stepped_in: share of them that the
    teacher wrote.
    """

    ids: Tensor
    weights: Tensor
    entropy: float
    lengths: list[int]
    stepped_in: float


@torch.no_grad()
def written(
    student: Halves,
    prompts: Tensor,
    new: int,
    seed: int,
    *,
    vocabulary: int,
    ends: Collection[int] = (),
    special: Sequence[int] = (),
    teacher: Halves | None = None,
) -> Written:
    """Sampled at temperature 1 from the likeliest tokens that hold 95 %, `new` tokens after `prompts [rows, length]`.

    A row ends with one of `ends`, which is predicted too; what is predicted where another of `special` follows does not
    count. seed: the row i draws from seed + i. teacher: steps in where both are further apart than they were so far.
    """
    samplers = [torch.Generator().manual_seed(seed + row) for row in range(len(prompts))]
    writers = [_Writer(one, vocabulary) for one in ([student] if teacher is None else [student, teacher])]
    ids, open_rows = prompts, torch.ones(len(prompts), dtype=torch.bool)
    weights, entropies, stepped_in, gaps = [], 0.0, 0, _Gaps(new)
    for place in range(new):
        given = ids if place == 0 else ids[:, -1:]
        chances = [writer.next(given) for writer in writers]
        chosen = sample(chances[0], 1.0, TOP_P, samplers)
        if teacher is not None:
            apart = gaps.far(chances[1], chances[0], open_rows, place)
            chosen = torch.where(apart, sample(chances[1], 1.0, TOP_P, samplers), chosen)
            stepped_in += int((apart & open_rows).sum())
        entropy = -(chances[0].exp() * chances[0].clamp_min(-1e4)).sum(-1).cpu()
        entropies += float(entropy[open_rows].sum())
        ended = torch.isin(chosen, torch.tensor(sorted(ends), dtype=chosen.dtype))
        skipped = torch.isin(chosen, torch.tensor(list(special), dtype=chosen.dtype)) & ~ended
        weights.append(open_rows & ~skipped)
        ids = torch.cat([ids, chosen[:, None].to(ids)], 1)
        open_rows = open_rows & ~ended
        if not open_rows.any():
            break
    counted = torch.stack(weights, 1)
    whole = torch.zeros(ids.shape)
    whole[:, prompts.shape[1] - 1 : -1] = counted
    every = int(counted.sum())
    lengths = counted.sum(1).tolist()
    return Written(ids, whole, entropies / max(1, every), lengths, stepped_in / max(1, every))


class _Writer:
    """A model with what it has read."""

    def __init__(self, halves: Halves, vocabulary: int) -> None:
        self.halves, self.vocabulary = halves, vocabulary
        self.cache: Any = None

    def next(self, ids: Tensor) -> Tensor:
        """Log-probabilities `[rows, vocabulary]` after `ids [rows, n]`, which follow what was read."""
        made = self.halves.model.base_model(input_ids=ids, past_key_values=self.cache, use_cache=True)
        self.cache = made.past_key_values
        return log_chances(self.halves.logits(made.last_hidden_state[:, -1]), self.vocabulary)


class _Gaps:
    """How far student and teacher are apart, and how far is too far (SWITCH, Jensen–Shannon against a threshold that
    falls exponentially on the way). The threshold is counted in the mean of the gaps so far: it needs no constant that
    fits a model, and falls by a factor of e over a text."""

    def __init__(self, new: int) -> None:
        self.new, self.sum, self.count = new, 0.0, 0

    def far(self, p: Tensor, q: Tensor, open_rows: Tensor, place: int) -> Tensor:
        """Whether the teacher's p and the student's q `[rows, vocabulary]` are too far apart, by row."""
        m = torch.logaddexp(p, q) - math.log(2)
        gaps = ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1)).cpu() / 2
        self.sum += float(gaps[open_rows].sum())
        self.count += int(open_rows.sum())
        return gaps > self.sum / max(1, self.count) * math.exp(-place / self.new)


def distinct(rows: Sequence[Sequence[int]], n: int = 3) -> float:
    """Share of runs of n tokens that are different ones; 1 of rows that have none."""
    runs = [tuple(row[at : at + n]) for row in rows for at in range(len(row) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0
