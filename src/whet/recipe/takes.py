"""How well the weights of a model take rounding, told from the weights alone before hours are spent on it."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from whet.steps.original import open_original
from whet.targets import find_target

SPIKE = 20.0  # times the standard deviation of its linear: one such weight stretches the grid of its whole group


def takes_rounding(folder: str | Path) -> dict[str, float]:
    """`kurtosis`: the median over linears of E[w^4] / E[w^2]^2, 3 for a normal distribution; the more weight lies in
    the tails, the more a grid loses. `spikes`: the share of linears with a weight beyond SPIKE standard deviations.

    Raises UsageError for a folder that cannot be compressed, such as one that is quantized already.
    """
    opened = open_original(folder, find_target("whet"))
    kurtosis, spikes = [], 0
    for linear in opened.parts.linears():
        square = linear.view(opened.checkpoint.read(linear.parameter)).float().square()
        second = float(square.mean())
        if second:
            kurtosis.append(float(square.square().mean()) / second**2)
            spikes += float(square.max()) > SPIKE**2 * second
    return {"kurtosis": median(kurtosis), "spikes": spikes / len(kurtosis)} if kurtosis else {}
