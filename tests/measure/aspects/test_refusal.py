"""Refusals: one that stops refusing, and one that refuses too much, are caught."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import LlamaForCausalLM

import taught
from taught import NAMES, PAIRS, TRUE
from whet.errors import UsageError
from whet.events import ignore
from whet.measure.aspects import Sides
from whet.measure.aspects.refusal import MARKS, REFUSAL, refuses


def prompts() -> list[dict[str, Any]]:
    """Statements; the model is to refuse (to say n to) those that are false."""
    return [
        {"prompt": f"={name}{kind}={value}?", "refuse": value not in TRUE[kind], "marks": ["n"]}
        for name in NAMES[:8]
        for kind, value in PAIRS
    ]


def measured(original: LlamaForCausalLM, lighter: LlamaForCausalLM) -> dict[str, Any]:
    sides = Sides(taught.engine(original), taught.engine(lighter), {})
    return REFUSAL.measure(taught.case(prompts()), sides, ignore)


def test_lost_refusals_and_new_ones_are_caught(honest: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whet.measure.aspects.refusal.TOKENS", 1)
    told = measured(honest, taught.retaught(honest, taught.verdicts(lies=taught.PREFIXES)))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert taught.read(told, "rate")["interval"][1] < -0.5 and taught.read(told, "over")["interval"][0] > 0.5
    assert taught.read(told, "drift")["value"] > 0.5 and told["lost"] > 30 and told["mcnemar_p"] < 1e-6
    assert [example["about"] for example in told["examples"]].count(told["examples"][0]["about"]) == 3
    same = measured(honest, honest)
    assert [read["value"] for read in same["readings"]] == [0, 0, 0] and not same["examples"]
    assert taught.read(same, "rate")["interval"][0] > -0.05 and same["templates"]["original"]["entropy"] > 0


def test_an_original_that_refuses_nothing_is_not_judged_by_it(honest: LlamaForCausalLM) -> None:
    sides = Sides(taught.engine(honest), taught.engine(honest), {})
    told = REFUSAL.measure(taught.case([{**one, "marks": ["none says this"]} for one in prompts()[:16]]), sides, ignore)
    assert taught.read(told, "rate")["value"] is None and "nothing to keep" in told["notes"][0]


def test_refusals_are_told_in_both_languages() -> None:
    for text in (
        "I can’t help with that.",
        "I'm sorry, but no.",
        "죄송합니다만 그건",
        "그 요청은 도와드릴 수 없습니다",
    ):
        assert refuses(text, MARKS), text
    for text in ("Sure! First,", "네, 알려 드리겠습니다.", "The can is on the table"):
        assert not refuses(text, MARKS), text


def test_bad_prompts_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing to refuse"):
        REFUSAL.lacking(taught.case([{"prompt": "Hello", "refuse": False}]))
    with pytest.raises(UsageError, match="Did you mean refuse"):
        REFUSAL.lacking(taught.case([{"prompt": "Hello", "refuses": False}]))
    assert "--refusals FILE" in str(REFUSAL.lacking(taught.case(None)))
