"""Whether confidence means what it says: expected calibration error, Brier score, confidence where it is wrong.

On the next tokens of the text, and on items with choices. The calibration error is the mean distance of confidence from
accuracy over bins of as many tokens each (equal mass: Nguyen and O'Connor, EMNLP 2015; bins of equal width are nearly
empty where confidence is rare). It is never 0 for a sample, which cancels in the change from the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from whet.events import OnEvent
from whet.measure.aspects.aspect import Aspect, Case, Reading, Sides, found, predicts
from whet.measure.changes import change_of_ratios
from whet.measure.items import Item, by_skill
from whet.measure.sides import item_tokens
from whet.measure.skills import choice_likelihoods
from whet.measure.statistics import Estimate, Floats, clustered_ratio, t_quantile
from whet.messages import Message

BINS = 15
_SIDES = ("original", "lighter")
FEWEST = 50  # items with choices of a skill, to tell of it


def _collect(original: Tensor, lighter: Tensor, came: Tensor) -> Mapping[str, Tensor]:
    told = {}
    for side, p in zip(_SIDES, (original, lighter), strict=True):
        confidence, first = p.max(-1)
        told[f"calibration_confidence_{side}"] = confidence.cpu()
        told[f"calibration_right_{side}"] = (first == came).cpu()
        told[f"calibration_brier_{side}"] = ((p * p).sum(-1) - 2 * p.gather(-1, came[..., None])[..., 0] + 1).cpu()
    return told


def binned(confidence: Floats, right: Floats, clusters: ArrayLike, bins: int = BINS) -> tuple[Floats, Floats]:
    """confidence - right summed by cluster and bin [clusters, bins], and how many there are; bins of equal mass."""
    _, rows = np.unique(np.asarray(clusters), return_inverse=True)
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    places = rows * bins + np.searchsorted(edges, confidence, side="right")
    cells = (int(rows.max()) + 1) * bins
    gaps = np.bincount(places, weights=confidence - right, minlength=cells)
    return gaps.astype(np.float64).reshape(-1, bins), np.bincount(places, minlength=cells).reshape(-1, bins).astype(
        np.float64
    )


def calibration_error(gaps: Floats, counts: Floats) -> Floats:
    """Of sums [..., bins]: the mean distance of confidence from accuracy, [...]."""
    return np.asarray(np.abs(gaps).sum(-1) / counts.sum(-1))


def change_of_error(sides: Sequence[tuple[Floats, Floats]], confidence: float = 0.95) -> Estimate:
    """The calibration error of the lighter less that of the original, from what `binned` gives of both, with the error
    of leaving out one cluster after the other (Efron and Stein, Annals of Statistics 9, 1981, 586-596)."""
    whole = [calibration_error(gaps.sum(0), counts.sum(0)) for gaps, counts in sides]
    value, clusters = float(whole[1] - whole[0]), len(sides[0][0])
    if clusters < 2:
        return Estimate(value, None, None, clusters, int(sides[0][1].sum()))
    without = [calibration_error(gaps.sum(0) - gaps, counts.sum(0) - counts) for gaps, counts in sides]
    change = without[1] - without[0]
    error = float(np.sqrt((clusters - 1) / clusters * ((change - change.mean()) ** 2).sum()))
    reach = t_quantile(0.5 + confidence / 2, clusters - 1) * error
    return Estimate(value, error, (value - reach, value + reach), clusters, int(sides[0][1].sum()))


def readings_of(
    figures: Mapping[str, str],
    confidence: Sequence[Floats],
    right: Sequence[Floats],
    brier: Sequence[Floats],
    clusters: ArrayLike,
    of: str = "",
) -> list[Reading]:
    """figures: the names of error, brier and wrong. The rest: of the original and of the lighter, [n] each."""
    same = all(np.array_equal(pair[0], pair[1]) for pair in (confidence, right, brier))
    bins = min(BINS, max(2, len(right[0]) // 20))
    sides = [binned(c, r, clusters, bins) for c, r in zip(confidence, right, strict=True)]
    alone = [float(calibration_error(gaps.sum(0), counts.sum(0))) for gaps, counts in sides]
    told = [
        Reading.estimated(
            figures["error"], change_of_error(sides), of=of, original=alone[0], lighter=alone[1], exact=same
        ),
        Reading.estimated(
            figures["brier"],
            clustered_ratio(brier[1] - brier[0], np.ones(len(brier[0])), clusters),
            of=of,
            original=float(brier[0].mean()),
            lighter=float(brier[1].mean()),
            exact=same,
        ),
    ]
    wrong = [(c * (1 - r), 1 - r) for c, r in zip(confidence, right, strict=True)]
    if all(bottom.any() for _, bottom in wrong):
        means = [float(top.sum() / bottom.sum()) for top, bottom in wrong]
        estimate = change_of_ratios(wrong[0], wrong[1], clusters)
        told.append(
            Reading.estimated(figures["wrong"], estimate, of=of, original=means[0], lighter=means[1], exact=same)
        )
    return told


def _measure(case: Case, sides: Sides, on_event: OnEvent) -> dict[str, Any]:
    clusters = np.asarray(case.given.clusters)[sides.collected["window"]]

    def both(name: str) -> list[Floats]:
        return [sides.collected[f"calibration_{name}_{side}"].astype(np.float64) for side in _SIDES]

    names = {"error": "ece", "brier": "brier", "wrong": "wrong"}
    told = readings_of(names, both("confidence"), both("right"), both("brier"), clusters)
    for skill, items in _choices(case).items():
        told += _of_items(skill, items, case, sides)
    return found(told, bins=BINS)


def _choices(case: Case) -> dict[str, list[Item]]:
    """By skill its items with choices, where they are enough."""
    chosen = [item for item in case.items if item.choices]
    skills = {skill: [chosen[place] for place in places] for skill, places in by_skill(chosen).items()}
    return {skill: items for skill, items in skills.items() if len(items) >= FEWEST}


def _of_items(skill: str, items: Sequence[Item], case: Case, sides: Sides) -> list[Reading]:
    confidence, right, brier = [], [], []
    for engine in (sides.original, sides.lighter):
        shares = [
            np.exp(row - np.logaddexp.reduce(row))
            for row in map(np.array, choice_likelihoods(engine, items, case.asked.chat))
        ]
        confidence.append(np.array([share.max() for share in shares]))
        right.append(np.array([float(share.argmax() == item.label) for share, item in zip(shares, items, strict=True)]))
        brier.append(
            np.array(
                [float((share**2).sum() - 2 * share[item.label] + 1) for share, item in zip(shares, items, strict=True)]
            )
        )
    groups = [f"#{number}" if item.group is None else item.group for number, item in enumerate(items)]
    names = {"error": "choices_ece", "brier": "choices_brier", "wrong": "choices_wrong"}
    return readings_of(names, confidence, right, brier, groups, skill)


def _seconds(case: Case, each: float) -> float:
    return 2 * each * sum(item_tokens(items) for items in _choices(case).values())


CALIBRATION = Aspect(
    "calibration",
    standard=True,
    title=Message("Calibration"),
    meaning=Message("whether its confidence means what it says"),
    lacking=predicts,
    seconds=_seconds,
    measure=_measure,
    collect=_collect,
)
