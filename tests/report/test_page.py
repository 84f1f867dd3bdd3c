from __future__ import annotations

import re
import string
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import whet.report
from report.facts import HOSTILE, facts
from whet.measure.figures import LIMITS
from whet.report import page
from whet.report.page import view
from whet.report.words import LANGUAGES, WORDS, Words

ALL = [
    "steps",
    "training",
    "worse",
    "limits",
    "quality",
    "skills",
    "aspects",
    "scores",
    "schemes",
    "rate",
    "rounds",
    "cost",
    "loading",
    "notes",
]


class Reader(HTMLParser):
    """The page's elements, and what is left open at its end."""

    void = ("meta", "link", "input", "wbr", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def sections(given: dict[str, Any], language: str = "en") -> list[str]:
    return [name for name, _ in view(given, Words(language))["sections"]]


def test_the_same_facts_give_the_same_bytes_and_are_left_as_they_were() -> None:
    given = facts()
    kept = deepcopy(given)
    assert page(given) == page(facts())
    assert given == kept


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_whole_html_in_the_language_asked_for(language: str) -> None:
    html = page(facts(), language)
    reader = Reader(html)
    assert reader.open == []
    assert html.startswith("<!DOCTYPE html>") and f'<html lang="{language}">' in html
    chosen = [a["value"] for tag, a in reader.found if tag == "input" and "checked" in a]
    assert chosen == [language, "auto"]
    ids = [a["id"] for _, a in reader.found if "id" in a]
    assert len(ids) == len(set(ids))
    linked = {str(a["href"])[1:] for tag, a in reader.found if tag == "a"}
    assert linked and linked <= set(ids)


def test_nothing_is_loaded_and_only_the_pages_own_script_may_run() -> None:
    html = page(facts())
    assert not re.search(r"(?:src|href)=\"(?!#|data:,)", html) and "url(" not in html and "@import" not in html
    reader = Reader(html)
    assert [tag for tag, _ in reader.found].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in reader.found for name in attributes)


def test_what_users_and_models_wrote_stays_text() -> None:
    html = page(facts())
    assert HOSTILE not in html
    assert Reader(html).text.count(HOSTILE) >= 10
    given = facts()
    given["compare"]["skills"][0]["skill"] = given["name"] = f'"{HOSTILE}'
    assert HOSTILE not in page(given)


def test_notes_are_told_in_both_languages_and_old_ones_in_english() -> None:
    english, korean = (view(facts(), Words(language)) for language in LANGUAGES)
    assert english["notes"][1:] == [f"copied unchanged, as no table names them: {HOSTILE}", *korean["notes"][2:]]
    assert korean["notes"][1] == f"표에 이름이 없어 그대로 복사했습니다: {HOSTILE}"
    assert korean["schemes"]["left_out"]["items"][0].startswith("whet은 q ")


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_is_shown(language: str) -> None:
    assert sections(facts(), language) == ALL


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ([], []),
        (["compare"], ["worse", "limits", "quality", "skills", "aspects", "cost", "notes"]),
        (["plan"], ["schemes", "rate", "rounds", "notes"]),
        (["scores"], ["scores"]),
        (["run"], ["cost"]),
        (["loading"], ["loading"]),
        (["plan", "scores"], ["scores", "schemes", "rate", "rounds", "notes"]),
    ],
)
def test_sections_without_data_are_left_out(kept: list[str], shown: list[str]) -> None:
    given = {name: value if name in kept else None for name, value in facts().items()}
    assert sections(given) == shown
    assert sections({name: given[name] for name in kept}) == shown
    reader = Reader(page(given))
    assert reader.open == []
    assert [tag for tag, _ in reader.found].count("section") == 2 * len(shown)


def test_a_comparison_without_skills_speed_or_error_bars() -> None:
    given = {"compare": facts()["compare"]}
    compare = given["compare"]
    compare |= {"skills": [], "aspects": {}, "speed": None, "memory": None, "notes": []}
    compare["judgements"] = [j for j in compare["judgements"] if j["limit"] != "min_retention"]
    for name in ("kl", "top1"):
        compare["divergence"][name] |= {"standard_error": None, "interval": None}
    compare["divergence"]["perplexity"]["ratio"]["interval"] = None
    assert sections(given) == ["worse", "limits", "quality", "cost"]
    page(given)


def test_a_plan_of_no_loss_has_its_numbers_in_the_table_and_no_plot() -> None:
    plan = facts()["plan"]
    plan["frontier"] = [{"bytes": 100, "bits": 16.0, "kl": 0.0}]
    plan |= {"uniform": [], "measured": [], "gap": None, "predicted": None}
    shown = view({"plan": plan}, Words("en"))["rate"]
    assert shown["plot"] is None and shown["note"] and len(shown["table"].rows) == 1
    page({"plan": plan})


def test_what_a_plan_is_the_best_of_is_said_with_what_a_free_mix_would_be() -> None:
    """Never that nothing is better, where only what stock transformers loads was looked at."""
    plan = facts()["plan"]
    free = {"bytes": 2_000_000, "bits": 3.5, "kl": 0.0042}
    for kind, words in (("bits", "lowest predicted loss within the budget"), ("quality", "this one is the smallest")):
        plan["budget"]["kind"] = kind
        for among, loads in (
            ("all", "Of all mixes that whet loads"),
            ("stock", "Of all mixes that stock transformers"),
        ):
            plan["gap"] = {"bound": 0.01, "relative": 0.0, "among": among, "free": free if among == "stock" else None}
            said = " ".join(view({"plan": plan}, Words("en"))["schemes"]["facts"])
            assert loads in said and words in said
            assert ("0.00420 nats per token at 3.50 bits: --for whet" in said) == (among == "stock")


def test_schemes_without_a_plan_are_those_written() -> None:
    linears = {
        "model.layers.0.self_attn.q_proj": {"grid": "int3-g32", "role": "q"},
        "model.layers.1.self_attn.q_proj": {"grid": "int4-g32"},
        "lm_head": {"grid": "int8"},
    }
    shown = view({"lighter": {"linears": linears}}, Words("en"))["schemes"]
    assert shown["roles"] == ["q", "q_proj"]
    assert [[cell and cell["text"] for cell in row["cells"]] for row in shown["rows"]] == [
        ["int3-g32", None],
        [None, "int4-g32"],
    ]
    assert [(part["name"], part["css"]) for part in shown["outside"]] == [("lm_head", "bits-8")]


def test_what_parts_lost_alone_stands_beside_what_was_predicted() -> None:
    told = facts()
    rows = view(told, Words("en"))["schemes"]["heavy"].rows
    told["lighter"]["linears"][rows[0].name] = {"kl": 0.0123}
    measured = view(told, Words("en"))["schemes"]["heavy"].rows
    assert [list(row.cells) for row in measured[:2]] == [
        [*rows[0].cells[:2], "0.0123", rows[0].cells[2]],
        [*rows[1].cells[:2], "–", rows[1].cells[2]],
    ]


def test_the_map_shows_shares_of_each_column() -> None:
    shown = view(facts(), Words("en"))["scores"]
    names = [column["name"] for column in shown["columns"]]
    assert names[0] == "all text" and names[-2:] == ["English", "Korean"] and len(names) == 13
    for place in range(len(names)):
        assert sum(int(row["cells"][place]["text"]) for row in shown["rows"]) == pytest.approx(100, abs=3)
    assert max(cell["css"] for row in shown["rows"] for cell in row["cells"]) == "heat-8"


def test_what_an_inspection_found_is_said_and_unknown_kinds_are_left_to_others() -> None:
    given = facts()["scores"]
    given["findings"] = [
        {"kind": "idle", "blocks": [3, 4]},
        {"kind": "one_skill", "skill": HOSTILE, "block": 2, "share": 0.61, "usual": 0.08},
        {"kind": "embedding", "share": 0.23, "saved": 1_000_000, "kl": 0.001},
        {"kind": "new", "x": 1},
    ]
    said = view({"scores": given}, Words("en"))["scores"]["findings"]
    assert len(said) == 3 and "3, 4" in said[0] and "61.0\u00a0%" in said[1] and "23.0\u00a0%" in said[2]
    assert HOSTILE not in page({"scores": given})


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="'fr' is not one of en, ko"):
        page({}, "fr")


def test_both_languages_say_everything_with_the_same_values() -> None:
    def values(words: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(words)} - {None}

    for key, (english, korean) in WORDS.items():
        assert english and korean, key
        assert values(english) == values(korean), key


def test_every_word_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a page of everything or of a plan; or said in the code, where it depends on the data."""
    seen: set[str] = set()
    say = Words.__call__

    def noted(self: Words, key: str, **values: object) -> str:
        seen.add(key)
        return say(self, key, **values)

    monkeypatch.setattr(Words, "__call__", noted)
    for given in (facts(), {"plan": facts()["plan"]}, {"scores": facts()["scores"]}, {}):
        page(given)
    code = "\n".join(f.read_text(encoding="utf-8") for f in Path(whet.report.__file__).parent.glob("*.py"))
    called = r"""(?:say|say\.known|self)\(\s*(?:.* else )?f?"%s"""
    unsaid = []
    for key in sorted(set(WORDS) - seen):
        family = key.partition(".")[0] + ".{"
        exactly, built = (re.search(called % re.escape(part), code) for part in (f'{key}"', family))
        if not (exactly or ("." in key and built) or f'"{key}" if' in code):
            unsaid.append(key)
    assert set(unsaid) <= set(LIMITS)


def test_the_files_of_the_page_are_in_the_package() -> None:
    folder = Path(whet.report.__file__).parent
    assert all((folder / name).is_file() for name in ("template.html", "style.css", "script.js"))


def test_the_curve_of_a_training_is_drawn_where_there_is_one_and_says_where_the_weights_are_from():
    given = facts()
    for language, words in (
        ("en", "0.0466 at the start, 0.0247 at its best, after 300 steps"),
        ("ko", "300스텝, 마름모"),
    ):
        found = view(given, Words(language))["training"]
        assert (
            words in found["lede"]
            and found["plot"].count("<circle") == 4
            and found["plot"].count('class="diamond"') == 1
        )
    held_out = given["lighter"]["lineage"][-1]["training"]["held_out"]
    held_out |= {"helped": False, "step": 0}
    assert "may be chance" in view(given, Words("en"))["training"]["lede"]
    for curve in ([], [[0, 0.1]], [[0, 0.1], [5, 0.0]]):
        held_out["curve"] = curve
        assert view(given, Words("en"))["training"] is None
