"""Calibration: a model whose confidence is doubled is caught, the same model is not, and figures are what they say."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import taught
from whet.events import ignore
from whet.measure.asked import Given
from whet.measure.aspects import Sides
from whet.measure.aspects.calibration import CALIBRATION, binned, calibration_error
from whet.measure.figures import ASPECTS
from whet.measure.items import Item


def measured(original: Tensor, lighter: Tensor, came: Tensor) -> dict[str, Any]:
    """Logits [windows, tokens, V] of both and the tokens that came."""
    assert CALIBRATION.collect is not None
    collect = CALIBRATION.collect
    collected = {
        name: value.flatten().numpy()
        for name, value in collect(original.softmax(-1), lighter.softmax(-1), came).items()
    }
    windows, tokens = came.shape
    collected["window"] = np.repeat(np.arange(windows), tokens)
    case = dataclasses.replace(taught.case(None), given=Given([], list(range(windows)), [], {}, [], []))
    return CALIBRATION.measure(case, Sides(None, None, collected), ignore)  # type: ignore[arg-type]


def material(scale: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    logits = scale * torch.randn(40, 50, 12)
    return logits, torch.distributions.Categorical(logits=logits).sample()


def test_doubled_confidence_is_caught_with_default_limits() -> None:
    logits, came = material(1.5)
    doubled, same = measured(logits, 2 * logits, came), measured(logits, logits.clone(), came)
    assert json.loads(json.dumps(doubled, allow_nan=False)) == doubled
    limit = ASPECTS["calibration.ece"].default
    assert limit is not None and taught.read(doubled, "ece")["interval"][0] > limit
    assert taught.read(doubled, "wrong")["interval"][0] > 0.05 and taught.read(doubled, "brier")["interval"][0] > 0
    assert [read["value"] for read in same["readings"]] == [0, 0, 0]
    assert taught.read(same, "ece")["interval"] == [0, 0] and taught.read(same, "ece")["original"] < 0.05


def test_noise_that_keeps_confidence_is_no_alarm() -> None:
    """Intervals of the change hold 0 for two readings of one process."""
    logits, came = material(1.5)
    other = logits + 0.02 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    low, high = taught.read(measured(logits, other, came), "ece")["interval"]
    assert low <= 0 <= high and high - low < 0.03


def test_figures_are_what_they_are_called() -> None:
    logits, came = material(1.0)
    p = logits.softmax(-1)
    told = measured(logits, logits, came)
    brier = ((p - torch.nn.functional.one_hot(came, 12)) ** 2).sum(-1).mean()
    assert taught.read(told, "brier")["original"] == pytest.approx(float(brier), abs=1e-6)
    wrong = p.argmax(-1) != came
    assert taught.read(told, "wrong")["original"] == pytest.approx(float(p.max(-1).values[wrong].mean()), abs=1e-6)
    confidence, right = np.array([0.2, 0.4, 0.6, 0.8]), np.array([0.0, 1.0, 1.0, 1.0])
    assert calibration_error(*(part.sum(0) for part in binned(confidence, right, [0, 0, 1, 1], 2))) == pytest.approx(
        0.25
    )


def test_items_with_choices(honest: Any) -> None:
    items = [
        Item("verdicts", f"={name}{kind}={value}?", choices=("y", "n"), label=0 if value in taught.TRUE[kind] else 1)
        for name in taught.NAMES[:2]
        for kind, value in taught.PAIRS
    ]
    sure = taught.damaged(honest, 0.0)
    with torch.no_grad():
        sure.lm_head.weight *= 4
    blunt = taught.damaged(honest, 0.0)
    with torch.no_grad():
        blunt.lm_head.weight *= 0.05
    logits, came = material(1.0)

    engines = Sides(taught.engine(blunt), taught.engine(sure), {})
    assert CALIBRATION.collect is not None
    collect = CALIBRATION.collect
    names = {name: value.flatten().numpy() for name, value in collect(*[logits.softmax(-1)] * 2, came).items()}
    names["window"] = np.repeat(np.arange(40), 50)
    given = Given([], list(range(40)), [], {}, [], [])
    told = CALIBRATION.measure(
        dataclasses.replace(taught.case(None), given=given, items=items), engines._replace(collected=names), ignore
    )
    read = taught.read(told, "choices_ece", "verdicts")
    assert read["original"] > 0.2 > read["lighter"] and read["interval"][1] < 0
