from __future__ import annotations

import re

import pytest

from report.facts import HOSTILE, facts
from whet.report import card_section


def test_the_card_has_the_key_facts() -> None:
    card = card_section(facts())
    for fact in ("Inconclusive", "9.5\u00a0MB → 2.5\u00a0MB", "0.01174 ± 0.00027", "arithmetic\\_ko", "What got worse"):
        assert fact in card
    assert "| v | 1 × int3-g32" in card and "| Embedding | 1 × int4-g32 |" in card
    assert 'model = AutoModelForCausalLM.from_pretrained("lighter", trust_remote_code=True)' in card


def test_tables_keep_their_columns_and_no_html_passes() -> None:
    given = facts()
    given["compare"]["skills"][0]["skill"] = f"a|b {HOSTILE} `c`\n# d"
    card = card_section(given)
    assert not re.search(r"(?<!\\)<", card)
    assert "\n# d" not in card
    for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_what_whets_own_tests_run_is_not_said_of_the_model() -> None:
    card = card_section(facts())
    assert "run in tests" not in card and "run here" not in card and "**transformers**\n" in card
    assert "**vllm**: accepted by its parser, not run" in card


def test_code_stays_code_whatever_is_in_it() -> None:
    card = card_section({"loading": [{"runtime": "x", "checked": "run here", "how": "a\n```\n<b>"}]})
    assert "````\na\n```\n<b>\n````" in card


@pytest.mark.parametrize("language", ["en", "ko"])
def test_what_is_missing_is_left_out(language: str) -> None:
    assert card_section({}, language) == ""
    planned = card_section({"plan": facts()["plan"]}, language)
    assert "2.2\u00a0MB" in planned and planned.count("## ") == 1
    assert card_section(facts(), language) == card_section(facts(), language)
