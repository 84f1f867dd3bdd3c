"""Susceptibility: a model that gives in to deceptive prompts alone is caught."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from transformers import LlamaForCausalLM

import taught
from taught import KINDS, NAMES, TRUE, VALUES
from whet.errors import UsageError
from whet.events import ignore
from whet.measure.aspects import Sides
from whet.measure.aspects.susceptibility import MOST, PREFIXES, SUSCEPTIBILITY, asked_of
from whet.measure.changes import change_of_means, change_of_ratios, sign_flips
from whet.measure.statements import Statement


def statements() -> list[dict[str, Any]]:
    made = []
    for number, name in enumerate(NAMES * 4):
        kind, value = KINDS[number % 8], VALUES[number // 8 % 4]
        record = {"statement": f"{name}{kind}={value}?", "negation": "-", "truth": value in TRUE[kind], "group": name}
        prefixes = dict(zip(("honest", "neutral", "deceptive"), ([one] for one in taught.PREFIXES), strict=True))
        made.append({**record, "ask": "{statement}", "answers": ["y", "n"], "prefixes": prefixes})
    return made


def measured(original: LlamaForCausalLM, lighter: LlamaForCausalLM) -> dict[str, Any]:
    sides = Sides(taught.engine(original), taught.engine(lighter), {})
    return SUSCEPTIBILITY.measure(taught.case(statements()), sides, ignore)


def test_one_that_is_talked_out_of_it_is_caught(honest: LlamaForCausalLM) -> None:
    gullible = measured(honest, taught.retaught(honest, taught.verdicts(lies=["!"]), whole=True))
    assert json.loads(json.dumps(gullible, allow_nan=False)) == gullible
    assert taught.read(gullible, "gap")["interval"][0] > 0.3 and gullible["p"] < 0.001
    assert taught.read(gullible, "deceptive")["interval"][1] < -0.3
    assert taught.read(gullible, "neutral")["interval"][0] > taught.read(gullible, "deceptive")["interval"][1]
    assert gullible["examples"][0]["prompt"].startswith("!")


def test_the_same_model_raises_no_alarm(honest: LlamaForCausalLM) -> None:
    told = measured(honest, honest)
    low, high = taught.read(told, "gap")["interval"]
    assert taught.read(told, "gap")["value"] == 0 and -0.1 < low < 0 < high < 0.1 and told["p"] == 1


def test_each_statement_is_asked_under_every_kind_of_prefix() -> None:
    one = {"statement": "가는 나다.", "negation": "가는 다다.", "truth": True, "language": "ko"}
    asked = asked_of([Statement(**one)])
    assert len(asked) == sum(map(len, PREFIXES["ko"].values())) == 9
    assert {item.prompt for _, _, item in asked} == {text for texts in PREFIXES["ko"].values() for text in texts}
    assert {(item.choices, item.label) for _, _, item in asked} == {(("가는 나다.", "가는 다다."), 0)}


def test_bad_prefixes_are_refused() -> None:
    bad = [{**one, "prefixes": {"honest": ["+"], "neutral": ["="]}} for one in statements()]
    with pytest.raises(UsageError, match="honest, neutral and deceptive"):
        SUSCEPTIBILITY.lacking(taught.case(bad))
    assert "--beliefs" in str(SUSCEPTIBILITY.lacking(taught.case(None)))
    assert SUSCEPTIBILITY.lacking(taught.case(statements())) is None and MOST >= 100


def test_paired_changes_have_honest_errors() -> None:
    """Of changes that are 0 on the whole, 95 % intervals hold 0 in about 95 of 100; groups that move together widen
    them, and where nothing changed room is left."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 4)
    hits, alarms = 0, 0
    for _ in range(200):
        before = (rng.random(240) < 0.7).astype(float)
        after = np.where(np.repeat(rng.random(60) < 0.3, 4), (rng.random(60) < 0.7).repeat(4), before)
        after = after.astype(float)
        base = 0.3 * (0.7 - before.mean())
        low, high = change_of_means(before, after, clusters).interval or (0, 0)
        hits += low <= base <= high
        alarms += sign_flips(rng.choice([-1.0, 0.0, 1.0], 60).repeat(4), clusters, 0, draws=400) < 0.05
    assert hits >= 185 and alarms <= 20
    ones = np.ones(200)
    for same, room in (
        (change_of_means(ones, ones, np.arange(200)), 0.0188),  # Tango's
        (change_of_means(ones / 2, ones / 2, np.arange(200)), 0.0197),
        (change_of_ratios((ones, ones), (ones, ones), np.arange(200)), 0.0197),
    ):
        assert same.value == 0 and same.interval == pytest.approx((-room, room), abs=2e-4)
