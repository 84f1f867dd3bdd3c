from __future__ import annotations

from typing import Any

import pytest

from report.facts import compare, facts
from whet.report.findings import findings, headline, model_name, verdict_sentence, weakest
from whet.report.words import Words

SAY = Words("en")


def sentences(result: dict[str, Any], kind: str) -> str:
    return "\n".join(finding.sentence for finding in findings(result, SAY) if finding.kind == kind)


def test_losses_beyond_chance_are_clear_and_the_others_are_named_too() -> None:
    result = compare()
    clear, unsure = sentences(result, "clear"), sentences(result, "unsure")
    assert "arithmetic_ko: 90.3" in clear and "41 answers lost, 7 gained of 1,000" in clear
    assert "grammar_en" in clear
    assert "facts −" in unsure and "arithmetic_ko" not in unsure
    assert "format" not in clear + unsure  # it gained more than it lost


def test_a_broken_limit_is_said_as_such_whatever_chance_says() -> None:
    result = compare("fail")
    entry = next(j for j in result["judgements"] if j["of"] == "facts")
    entry["verdict"] = "fail"
    assert "facts: " in sentences(result, "broken") and "facts: " not in sentences(result, "clear")


def test_what_is_red_is_what_the_verdict_is_about() -> None:
    """A model that passes has nothing under "Breaks a limit", and what fails is the first thing there."""
    passed = compare("pass")
    for entry in passed["judgements"]:
        entry["verdict"] = "pass"
    found = findings(passed, SAY)
    assert found and not [finding for finding in found if finding.kind == "broken"]
    assert verdict_sentence("pass", found, SAY) == "Every limit holds. What got worse within them is below."
    assert verdict_sentence("pass", [], SAY) == "Every limit holds."
    assert SAY("worse.clear") == "Beyond error bars"
    for limit, word in (("max_kl", "One token in 1,000"), ("min_top1", "another token"), ("max_ppl_ratio", "Perplex")):
        failed = compare("fail")
        failed["judgements"] = [{"limit": limit, "verdict": "fail", "of": ""}]
        first = findings(failed, SAY)[0]
        assert first.kind == "broken" and word in first.sentence
    assert verdict_sentence("fail", found, SAY) == "A limit is broken."


def test_what_costs_more_or_did_not_gain_is_said() -> None:
    result = compare()
    assert "Decoding is slower: 189 → 171" in sentences(result, "clear")
    assert "Prefill is not measurably faster" in sentences(result, "same")
    assert "Memory in use did not shrink" in sentences(result, "same")
    result["memory"]["lighter"]["peak_bytes"] *= 2
    assert "Peak memory rose" in sentences(result, "clear")


def test_a_perplexity_that_may_be_chance_is_not_clear_and_a_better_one_is_no_loss() -> None:
    result = compare()
    result["divergence"]["perplexity"]["ratio"] = {"value": 1.001, "interval": [0.999, 1.003]}
    assert "Perplexity" in sentences(result, "unsure") and "Perplexity" not in sentences(result, "clear")
    result["divergence"]["perplexity"]["ratio"] = {"value": 0.99, "interval": [0.98, 1.0]}
    assert "Perplexity" not in sentences(result, "unsure") + sentences(result, "clear")


def test_the_original_itself_has_nothing_worse() -> None:
    result = compare("pass") | {"speed": None, "memory": None, "skills": []}
    measured = result["divergence"]
    measured["kl"] = {
        "mean": 0.0,
        "standard_error": 0.0,
        "interval": [0.0, 0.0],
        "percentiles": {"p50": 0.0, "p99.9": 0.0},
    }
    measured["top1"]["mean"] = measured["perplexity"]["ratio"]["value"] = 1.0
    assert findings(result, SAY) == []


def test_names_and_headlines() -> None:
    given = facts()
    assert headline(given, SAY) == "tiny-bilingual, 3.8× smaller"
    assert headline(given, Words("ko")) == "tiny-bilingual, 3.8배 가볍게"
    assert headline({"plan": given["plan"]}, SAY) == "A plan for tiny-bilingual"
    assert headline({}, SAY) == "the model"
    assert model_name({"compare": given["compare"]}) == "tiny-bilingual"  # its folder's name
    assert model_name(given | {"name": "mine"}) == "mine"


def test_the_weakest_skill_leaves_out_what_the_original_cannot() -> None:
    skill = weakest(compare())
    assert skill is not None and skill["skill"] == "grammar_en"
    assert weakest(compare() | {"skills": []}) is None


@pytest.mark.parametrize("language", ["en", "ko"])
def test_both_languages_find_the_same(language: str) -> None:
    kinds = [finding.kind for finding in findings(compare(), Words(language))]
    assert kinds == [*["clear"] * 6, "unsure", *["same"] * 2]
