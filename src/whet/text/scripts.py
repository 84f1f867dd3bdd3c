"""Which scripts a token is written in, and which scripts a language is: what `--keep-languages` decides by."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

from whet.errors import UsageError, did_you_mean

# Languages by ISO 639-1; scripts by the word that Unicode's names of their letters begin with.
_LATIN = (
    "en de fr es pt it nl sv da no fi pl cs sk hu ro tr vi id ms sw et lv lt sl hr is ga cy eu ca gl af sq az uz tl"
)
_BY_SCRIPT = {
    ("LATIN",): _LATIN,
    ("CYRILLIC",): "ru uk bg be mk kk ky tg mn",
    ("CYRILLIC", "LATIN"): "sr bs",
    ("ARABIC",): "ar fa ur ps ku ug",
    ("DEVANAGARI",): "hi mr ne sa",
    ("BENGALI",): "bn as",
    ("HANGUL",): "ko",
    ("HIRAGANA", "KATAKANA", "CJK"): "ja",
    ("CJK", "BOPOMOFO"): "zh",
    ("GREEK",): "el",
    ("HEBREW",): "he yi",
    ("THAI",): "th",
    ("LAO",): "lo",
    ("KHMER",): "km",
    ("MYANMAR",): "my",
    ("TAMIL",): "ta",
    ("TELUGU",): "te",
    ("KANNADA",): "kn",
    ("MALAYALAM",): "ml",
    ("GUJARATI",): "gu",
    ("GURMUKHI",): "pa",
    ("SINHALA",): "si",
    ("GEORGIAN",): "ka",
    ("ARMENIAN",): "hy",
    ("ETHIOPIC",): "am ti",
    ("TIBETAN",): "bo dz",
}
LANGUAGES: dict[str, tuple[str, ...]] = {
    language: scripts for scripts, languages in _BY_SCRIPT.items() for language in languages.split()
}
# What letters' names begin with beside their scripts.
_SAME = {"IDEOGRAPHIC": "CJK", "KATAKANA-HIRAGANA": "KATAKANA"}
_KNOWN = frozenset(script for scripts in LANGUAGES.values() for script in scripts)
_OTHER = "other"  # a letter of a script that no language here has


def scripts_of(languages: Sequence[str]) -> frozenset[str]:
    """The scripts of languages, each by its code or by the name of a script. Raises UsageError for one that is
    neither."""
    found: set[str] = set()
    for language in languages:
        name = language.strip()
        known = LANGUAGES.get(name.lower().split("-")[0].split("_")[0])
        if known is None and name.upper() in _KNOWN:
            known = (name.upper(),)
        if known is None:
            raise UsageError(
                "{language!r} is no language that whet knows the script of.{near} Give codes such as ko, en, ja, zh, "
                "or scripts: {scripts}.",
                language=language,
                near=did_you_mean(name.lower(), LANGUAGES),
                scripts=", ".join(sorted(script.lower() for script in _KNOWN)),
            )
        found |= set(known)
    return frozenset(found)


def scripts_in(text: str) -> frozenset[str]:
    """The scripts of the letters of a text, in the form of `LANGUAGES`; digits, marks and signs have none."""
    found = {_script(letter) for letter in unicodedata.normalize("NFKC", text)}
    return frozenset(script for script in found if script)


def main_script(text: str) -> str:
    """The script of most letters of a text, '' of one without letters."""
    counts: dict[str, int] = {}
    for letter in text:
        if script := _script(letter):
            counts[script] = counts.get(script, 0) + 1
    return max(counts, key=lambda script: counts[script]) if counts else ""


@cache
def _script(letter: str) -> str:
    """The script of a letter, '' of what is none."""
    if not unicodedata.category(letter).startswith("L"):
        return ""
    first = unicodedata.name(letter, "").split(" ")[0]
    if first == "MODIFIER":
        return ""
    first = _SAME.get(first, first)
    return first if first in _KNOWN else _OTHER
