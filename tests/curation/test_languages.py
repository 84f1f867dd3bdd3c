"""Languages: told by script, else by py3langid; nothing is removed for what is not told."""

from __future__ import annotations

import pytest

from whet.curation import languages as module
from whet.curation.languages import Languages, parse_languages
from whet.errors import MachineError, UsageError
from wording import each

TOLD = {
    "ko": "어제 서울에서 BTS의 콘서트를 보았다.",
    "ja": "昨日の夜、東京で友だちと話しました。",
    "zh": "昨天晚上我们在北京谈了很久。",
    "th": "เมื่อวานนี้เราไปตลาดด้วยกัน",
    "el": "Χθες το βράδυ μιλήσαμε πολύ.",
}
LATIN = {
    "en": "The old man walked slowly through the forest and looked for his dog.",
    "de": "Der alte Mann ging langsam durch den Wald und suchte nach seinem Hund.",
    "fr": "Le vieil homme marchait lentement dans la forêt et cherchait son chien.",
    "sv": "Den gamle mannen gick sakta genom skogen och letade efter sin hund.",
}


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """py3langid is not installed."""
    monkeypatch.setattr(module, "_ranking", lambda: None)


def test_scripts_tell_without_a_package(blind: None) -> None:
    told = Languages()
    assert {language: told.of(text) for language, text in TOLD.items()} == {language: language for language in TOLD}
    assert told.blind and told.of(LATIN["de"]) == "und"
    korean = Languages(["ko"])
    assert [korean.of(text) for text in (TOLD["ko"], LATIN["en"], TOLD["ja"], "3 + 4 = 7")] == ["ko", None, None, "und"]


def test_what_needs_the_package_says_so(blind: None) -> None:
    with pytest.raises(MachineError, match=r'Telling en from .* pip install "whet\[curate\]"'):
        Languages(["ko", "en"])


def test_languages_of_one_script_are_told_apart() -> None:
    pytest.importorskip("py3langid")
    told, asked = Languages(), Languages(["en", "ko"])
    assert {language: told.of(text) for language, text in LATIN.items()} == {language: language for language in LATIN}
    assert [asked.of(text) for text in LATIN.values()] == ["en", None, None, None]


def test_a_text_that_is_not_surely_of_another_language_stays() -> None:
    pytest.importorskip("py3langid")
    asked = Languages(["en", "ko"])
    some = ["38 - 19 = ?\nAnswer: 19\n71 - 16 = ?", "cow meat coat", "def f(x):\n    return x + 1", "Tokyo, Berlin"]
    assert [asked.of(text) for text in some] == ["en"] * 4


def test_a_text_of_two_languages_is_of_the_one_that_says_more() -> None:
    pytest.importorskip("py3langid")
    asked = Languages(["en", "ko"])
    assert asked.of(f"Translate: {TOLD['ko']} {TOLD['ko']}") == "ko"
    assert asked.of(f"{LATIN['en']} {LATIN['en']} 사과") == "en"


@each(
    "given, said",
    [("xx", "'xx' is no language"), ("kr", "Did you mean"), ("en,en", "twice"), ("", "''"), ("en,", "''")],
)
def test_wrong_languages_are_named(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_languages(given)
