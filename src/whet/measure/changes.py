"""Changes of shares from the original to the lighter model, on the same items: paired and clustered error bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whet.measure.statistics import Estimate, Floats, independent_items, paired_difference, t_quantile

Ratio = tuple[ArrayLike, ArrayLike]  # numerators and denominators, an entry an item


def change_of_ratios(original: Ratio, lighter: Ratio, clusters: ArrayLike, confidence: float = 0.95) -> Estimate:
    """sum(numerator) / sum(denominator) of the lighter less that of the original, [n] items in `clusters` (labels).

    Numerators are from 0 to 1, denominators 0 or counts. The error is that of the paired, linearised difference, as in
    `clustered_ratio`, with what one item that changed by 2 would add: where nothing changed it is then not 0, and 200
    items leave room for 1.97 points either way, as Tango's score interval does (1.9). (The idea of Agresti and Min,
    Statistics in Medicine 24, 2005, 729-740.) `value` is NaN where a denominator sums to 0, and there is no interval
    for under two clusters.
    """
    _, places = np.unique(np.asarray(clusters), return_inverse=True)
    residuals = np.zeros(places.max(initial=-1) + 1)
    value, least, items = 0.0, len(residuals), math.inf
    for sign, (top, bottom) in ((1, lighter), (-1, original)):
        numerator, denominator = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
        total = denominator.sum()
        if not total:
            return Estimate(math.nan, None, None, 0, len(places))
        ratio = float(numerator.sum() / total)
        value += sign * ratio
        residuals += sign * np.bincount(places, weights=(numerator - ratio * denominator) / total)
        items = min(items, float(total))
        least = min(least, int((np.bincount(places, weights=denominator) > 0).sum()))
    if least < 2:
        return Estimate(value, None, None, least, len(places))
    error = math.sqrt(least / (least - 1) * float(residuals @ residuals) + (2 / items) ** 2)
    reach = t_quantile(0.5 + confidence / 2, least - 1) * error
    ends = max(min(-1.0, value), value - reach), min(max(1.0, value), value + reach)
    return Estimate(value, error, ends, least, len(places))


def change_of_means(original: ArrayLike, lighter: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The mean of the lighter less that of the original, over the same items [n], each from 0 to 1.

    Where each is 0 or 1, such as right or wrong, the score interval of `paired_difference`, in which clusters count
    where items depend on each other; else the interval of `change_of_ratios`.
    """
    before, after = np.asarray(original, np.float64), np.asarray(lighter, np.float64)
    if not np.isin(before, (0, 1)).all() or not np.isin(after, (0, 1)).all():
        ones = np.ones(before.shape)
        return change_of_ratios((before, ones), (after, ones), clusters, confidence)
    flips, groups = after - before, len(np.unique(np.asarray(clusters)))
    if groups < 2:
        return Estimate(float(flips.mean()), None, None, groups, len(flips))
    weight = independent_items(flips, clusters, confidence) / len(flips)
    lost, gained = float((flips < 0).sum()), float((flips > 0).sum())
    ends = paired_difference(lost * weight, gained * weight, len(flips) * weight, confidence)
    return Estimate(float(flips.mean()), None, ends, groups, len(flips))


def jackknife(of: Callable[[NDArray[np.intp]], float], clusters: Sequence[Any], confidence: float = 0.95) -> Estimate:
    """A figure of items with the error of leaving out one cluster after the other; `of` is given the places of the
    items that count. Efron and Stein, Annals of Statistics 9, 1981, 586-596. NaN anywhere gives no interval."""
    labels = np.asarray(clusters)
    names = np.unique(labels)
    value = of(np.arange(len(labels)))
    if len(names) < 3:
        return Estimate(value, None, None, len(names), len(labels))
    without: Floats = np.array([of(np.flatnonzero(labels != name)) for name in names])
    error = math.sqrt((len(names) - 1) / len(names) * float(((without - without.mean()) ** 2).sum()))
    if not math.isfinite(error) or not math.isfinite(value):
        return Estimate(value, None, None, len(names), len(labels))
    reach = t_quantile(0.5 + confidence / 2, len(names) - 1) * error
    return Estimate(value, error, (value - reach, value + reach), len(names), len(labels))


def sign_flips(changes: ArrayLike, clusters: ArrayLike, seed: int, draws: int = 4000) -> float:
    """Two-sided p that the changes [n] of items in `clusters` are as likely the other way round: the share of draws, of
    which each turns every cluster by chance, whose sum is as far from 0; the changes as they are count as one draw."""
    _, places = np.unique(np.asarray(clusters), return_inverse=True)
    totals = np.bincount(places, weights=np.asarray(changes, np.float64))
    turned = np.random.default_rng(seed).choice([-1.0, 1.0], (draws, len(totals))) @ totals
    return float((1 + (np.abs(turned) >= abs(totals.sum()) - 1e-9).sum()) / (draws + 1))
