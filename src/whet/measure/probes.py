"""Probes: what hidden states tell of a statement, by a linear function of the difference that its negation makes.

The supervised probe is a logistic regression with a ridge; features are centred over the statements, so that what the
form of a negation adds to every state alike is taken out, and there is no intercept. Beside it contrast-consistent
search, which sees no labels (Burns and others, Discovering Latent Knowledge in Language Models Without Supervision,
ICLR 2023, arXiv 2212.03827).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from whet.measure.statistics import Floats

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
FOLDS = 5
_STEPS, _TRIES = 300, 10  # of contrast-consistent search


def logistic(x: Floats, y: Floats, ridge: float, start: Floats | None = None) -> Floats:
    """w [d] that minimises mean -log sigmoid(±x w) + ridge / 2 |w|², x [n, d], y 0 or 1 [n], by Newton's method. start:
    where it begins, at 0 unless given."""
    w = np.zeros(x.shape[1]) if start is None else start

    def loss(w: Floats) -> float:
        z = x @ w
        return float(np.logaddexp(0, np.where(y > 0, -z, z)).mean() + ridge / 2 * w @ w)

    now = loss(w)
    for _ in range(50):
        p = sigmoid(x @ w)
        gradient = x.T @ (p - y) / len(y) + ridge * w
        curvature = (x * (p * (1 - p))[:, None]).T @ x / len(y) + ridge * np.eye(len(w))
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (then := loss(w - size * step)) > now and size > 1e-6:
            size /= 2
        w, gained, now = w - size * step, now - then, then
        if gained < 1e-10:
            break
    return w


def sigmoid(z: Floats) -> Floats:
    """1 / (1 + exp(-z)), without overflow."""
    return np.exp(-np.logaddexp(0, -z))


def folds_of(groups: Sequence[Any], seed: int, count: int = FOLDS) -> Floats:
    """Of each item the number of its fold; items of one group are in one fold."""
    names = list(dict.fromkeys(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {name: int(place) % count for name, place in zip(names, order, strict=True)}
    return np.array([fold[group] for group in groups], np.float64)


@dataclass(frozen=True)
class Beliefs:
    """The probability that each statement is true, [n], by probes that were trained on other groups: `original` from
    the states of the model that the probes were trained on, `moved` from another's, by the same probes."""

    original: Floats
    moved: Floats | None


def believed(x: Floats, moved: Floats | None, truth: Floats, folds: Floats, centred: bool = True) -> Beliefs:
    """Probes trained on `x` [n, d] of the original, each on all folds but one and read on that one.

    moved: features [n, d] of another model, read by the same probes: centred by that model's own means (the training
    folds'), which takes no labels, and scaled as the original's. The ridge of a fold is that of the least loss on a
    quarter of its training groups.
    """
    if x.shape[1] > x.shape[0]:  # a ridge's weights lie in the span of the rows
        span = np.linalg.svd(x, full_matrices=False)[2]
        x, moved = x @ span.T, None if moved is None else moved @ span.T
    out, other = np.zeros(len(x)), None if moved is None else np.zeros(len(x))
    for fold in np.unique(folds):
        train, read = folds != fold, folds == fold
        inner = train & (folds == (fold + 1) % (folds.max() + 1))
        middle = x[train].mean(0) if centred else np.zeros(x.shape[1])
        scale = float(np.sqrt(((x[train] - middle) ** 2).mean())) or 1.0
        z = (x - middle) / scale
        w = logistic(z[train], truth[train], *_best_ridge(z, truth, train & ~inner, inner))
        out[read] = sigmoid(z[read] @ w)
        if moved is not None and other is not None:
            theirs = moved[train].mean(0) if centred else 0.0
            other[read] = sigmoid((moved[read] - theirs) / scale @ w)
    return Beliefs(out, other)


def _best_ridge(z: Floats, truth: Floats, train: Any, read: Any) -> tuple[float, Floats]:
    """Of probes trained on `train` the ridge of the one with the least loss on `read`, and its weights. The strongest
    comes first; each begins where the one before it ended."""
    found, w = [], None
    for ridge in sorted(RIDGES, reverse=True):
        w = logistic(z[train], truth[train], ridge, w)
        found.append((log_loss(sigmoid(z[read] @ w), truth[read]), ridge, w))
    _, ridge, w = min(found, key=lambda one: one[:2])
    return ridge, w


def log_loss(p: Floats, truth: Floats) -> float:
    """Mean -log of the probability given to what is so, in nats."""
    return float(-np.log(np.clip(np.where(truth > 0, p, 1 - p), 1e-12, 1)).mean())


def consistent(
    statement: Floats, negation: Floats, truth: Floats, seed: int, moved: tuple[Floats, Floats] | None = None
) -> Beliefs:
    """Beliefs by contrast-consistent search on states [n, d] of statements and their negations: the probe p of
    least mean (p⁺ - (1 - p⁻))² + min(p⁺, p⁻)², of ten from random starts, each set centred and scaled by itself.

    moved: the same states of another model, read by the same probe. Which end of a probe is `true` no one can tell
    without labels: it is the end that `truth` says for more statements.
    """
    rng = torch.Generator().manual_seed(seed)
    scales = [float(np.sqrt(((side - side.mean(0)) ** 2).mean())) or 1.0 for side in (statement, negation)]

    def centred(sides: tuple[Floats, Floats]) -> list[torch.Tensor]:
        return [
            torch.from_numpy((side - side.mean(0)) / scale).float() for side, scale in zip(sides, scales, strict=True)
        ]

    plus, minus = centred((statement, negation))
    width = plus.shape[1]
    weights = torch.randn(_TRIES, width, generator=rng) / width**0.5
    weights.requires_grad_(True)
    bias = torch.zeros(_TRIES, 1, requires_grad=True)
    adam = torch.optim.AdamW([weights, bias], lr=1e-2, weight_decay=0.01)

    def of(side: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(weights @ side.T + bias)

    def losses() -> torch.Tensor:
        p, q = of(plus), of(minus)
        return ((p - (1 - q)) ** 2 + torch.minimum(p, q) ** 2).mean(1)

    for _ in range(_STEPS):
        adam.zero_grad()
        losses().sum().backward()  # type: ignore[no-untyped-call]
        adam.step()
    with torch.no_grad():
        best = int(losses().argmin())

        def belief(sides: list[torch.Tensor]) -> Floats:
            return np.asarray(((of(sides[0]) + 1 - of(sides[1])) / 2)[best].double())

        mine = belief([plus, minus])
        theirs = None if moved is None else belief(centred(moved))
    if ((mine > 0.5) == (truth > 0)).mean() < 0.5:
        mine, theirs = 1 - mine, None if theirs is None else 1 - theirs
    return Beliefs(mine, theirs)
