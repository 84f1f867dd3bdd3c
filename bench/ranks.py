"""How well losses of parts and schemes order what was measured, and how well they add up to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from evaluation import table

Losses = Mapping[str, Mapping[str, float]]  # by address, then by scheme


def compared(
    measured: Losses,
    scorers: Mapping[str, Losses],
    absolute: Sequence[str],
    addresses: Sequence[str],
    schemes: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, dict[str, dict[str, tuple[float, float, float]]]]:
    """Print and return rank correlations and, of the scorers named in `absolute`, predicted over measured sums.

    Each as (value, low, high) for every scheme and for all pairs of part and scheme together.
    """
    truth = array(measured, addresses, schemes)
    drawn = np.random.default_rng(seed).integers(len(addresses), size=(resamples, len(addresses)))
    result: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {"spearman": {}, "ratio": {}}
    for key, statistic in (("spearman", spearman), ("ratio", ratio)):
        rows = []
        for name, losses in scorers.items():
            if key == "ratio" and name not in absolute:
                continue
            values = array(losses, addresses, schemes)
            columns = [*((values[:, [i]], truth[:, [i]]) for i in range(len(schemes))), (values, truth)]
            cells = [interval(statistic, *column, drawn) for column in columns]
            result[key][name] = dict(zip([*schemes, "all"], cells, strict=True))
            rows.append([name, *(f"{value:.3f} ({low:.2f}–{high:.2f})" for value, low, high in cells)])
        what = "rank correlation with measured KL" if key == "spearman" else "predicted / measured, sums over linears"
        print(f"\n{what}; in brackets 95 % over {len(addresses)} linears")
        print(table(["scorer", *schemes, "all"], rows), flush=True)
    return result


def array(losses: Losses, addresses: Sequence[str], schemes: Sequence[str]) -> np.ndarray:
    return np.array([[losses[address][scheme] for scheme in schemes] for address in addresses])


def interval(
    statistic: Callable[[np.ndarray, np.ndarray], float], values: np.ndarray, truth: np.ndarray, drawn: np.ndarray
) -> tuple[float, float, float]:
    """The statistic of values and truth `[parts, schemes]`, and its 95 % over the parts `drawn [resamples, parts]`."""
    low, high = np.nanquantile([statistic(values[i], truth[i]) for i in drawn], [0.025, 0.975])
    return statistic(values, truth), float(low), float(high)


def ratio(values: np.ndarray, truth: np.ndarray) -> float:
    return float(values.sum() / truth.sum())


def spearman(values: np.ndarray, truth: np.ndarray) -> float:
    """Rank correlation, ties sharing their mean rank; nan where all values are alike."""
    first, second = ranks(values.ravel()), ranks(truth.ravel())
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]
