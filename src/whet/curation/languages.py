"""Which language a text is in: by its script, and where several languages share that, by py3langid (extra `curate`).

py3langid is the lightest that passes: 4.6 MB and numpy alone (lingua has 96 MB), 0.2 ms a text. The commonest words of
each language, tried first, needed nothing and left half of short Danish, Catalan and Croatian texts open. Between two
languages it decides by a difference of log-likelihoods: of 5,479 English texts of the embedded model's generator, some
of them sums alone, the largest in favour of another language is 2.8; of texts of 23 other languages in Latin script,
two sentences each, 99 in 100 have more than 10 (most over 100). So 10 it is, and what is under it is left as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from whet.errors import MachineError, UsageError, did_you_mean
from whet.text.scripts import LANGUAGES, main_script

UNKNOWN = "und"  # ISO 639-2: undetermined
_SURE = 10.0  # nats by which one language has to be likelier than another
_SAMPLE = 4000  # letters of a text that are looked at, from its begin and from its middle
# What a letter says beside a Latin one: about how many of those spell the same
_WEIGHT = {"HANGUL": 2.5, "CJK": 3.0, "HIRAGANA": 2.0, "KATAKANA": 2.0}
_KANA = ("HIRAGANA", "KATAKANA")
_SOME = 0.1  # of kana among Han with which a text is Japanese, of Hangul with which it is Korean
_NOT_WORDS = re.compile(r"[\W\d_]+")


class Languages:
    """Tells languages; `asked` are those that are wanted, none where any is.

    Raises MachineError where it takes py3langid to tell them and that is not installed. `blind`: it is not, and
    languages that share a script are told of no text.
    """

    def __init__(self, asked: Sequence[str] = ()) -> None:
        self.asked = tuple(asked)
        self._rank = _ranking()
        shared = [language for language in self.asked if len(_sharing(LANGUAGES[language][0])) > 1]
        if shared and self._rank is None:
            raise MachineError(
                "Telling {language} from other languages of its script needs py3langid. Install it with: pip install "
                '"whet[curate]"',
                language=shared[0],
            )
        self.blind = self._rank is None

    def of(self, text: str) -> str | None:
        """The language of a text by ISO 639-1, `und` where nothing tells it; None where it is none of those asked for.

        What is not surely of another language is taken for the likeliest that was asked for. A text without letters is
        of every language, `und`.
        """
        sample = _sample(text)
        script = _script_of(sample)
        if not script:
            return UNKNOWN
        languages = _sharing(script)
        mine = [language for language in self.asked if script in LANGUAGES[language]]
        if self.asked and not mine:
            return None
        if len(languages) == 1:
            return languages[0]
        if self._rank is None:
            return UNKNOWN
        scores = self._scores(sample, script, languages)
        best = max(scores, key=lambda language: scores[language], default=UNKNOWN)
        if self.asked:
            nearest = max(mine, key=lambda language: scores.get(language, float("-inf")))
            return None if scores.get(best, 0.0) - scores.get(nearest, 0.0) >= _SURE else nearest
        rest = [score for language, score in scores.items() if language != best]
        return best if rest and scores[best] - max(rest) >= _SURE else UNKNOWN

    def _scores(self, sample: str, script: str, languages: Sequence[str]) -> dict[str, float]:
        """Log-likelihoods of a text's letters of that script."""
        words = (word for word in _NOT_WORDS.split(sample) if word and _script_of(word) == script)
        return {str(name): float(score) for name, score in self._rank(" ".join(words)) if name in languages}


def parse_languages(told: str) -> list[str]:
    """`en,ko` as a list. Raises UsageError for one that is not known or comes twice."""
    found: list[str] = []
    for name in (one.strip().lower() for one in told.split(",")):
        if name not in LANGUAGES:
            raise UsageError(
                "{language!r} is no language that whet knows.{near} Give codes with commas between, such as en,ko; "
                "known are: {known}.",
                language=name,
                near=did_you_mean(name, LANGUAGES),
                known=", ".join(LANGUAGES),
            )
        if name in found:
            raise UsageError("{language} comes twice among the languages. Name each once.", language=name)
        found.append(name)
    return found


@cache
def _ranking() -> Any:
    """py3langid's function, None where it is not installed."""
    try:
        import py3langid
    except ImportError:
        return None
    return py3langid.rank


@cache
def _sharing(script: str) -> tuple[str, ...]:
    """The languages that are told by a script, or among those that share it."""
    found = tuple(language for language, scripts in LANGUAGES.items() if scripts[0] == script)
    return found or (UNKNOWN,)


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE:
        return text
    middle = len(text) // 2
    return text[: _SAMPLE // 2] + text[middle : middle + _SAMPLE // 2]


def _script_of(sample: str) -> str:
    """The script that most of a text is written in, each letter by what it says; '' of one without letters."""
    counts: dict[str, float] = {}
    for letter, count in Counter(sample).items():
        if script := main_script(letter):
            counts[script] = counts.get(script, 0.0) + count * _WEIGHT.get(script, 1.0)
    kana, han = sum(counts.get(script, 0.0) for script in _KANA), counts.get("CJK", 0.0)
    if kana > _SOME * (kana + han):
        counts["HIRAGANA"] = kana + counts.pop("CJK", 0.0)
        counts.pop("KATAKANA", None)
    elif counts.get("HANGUL", 0.0) > _SOME * han:
        counts["HANGUL"] += counts.pop("CJK", 0.0)
    return max(counts, key=lambda script: counts[script]) if counts else ""
