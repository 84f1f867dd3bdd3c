"""Korean particles, chosen by the sound a word ends in.

A Hangul syllable is `0xAC00 + (initial * 21 + vowel) * 28 + final`, so its final consonant is the code modulo 28: 0 is
none, 8 is ㄹ. Numbers count as they are read aloud (`3` is 삼, with a final; `2` is 이, without).
"""

from __future__ import annotations

# Final consonant of each digit as read (영 일 이 삼 사 오 육 칠 팔 구); a last 0 is read 십, 백, ... or 영: all closed.
_DIGIT_FINALS = {"0": 21, "1": 8, "2": 0, "3": 16, "4": 0, "5": 0, "6": 1, "7": 8, "8": 8, "9": 0}

# particle asked for -> (after a final consonant, after a vowel)
_PAIRS = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "과": ("과", "와"),
    "으로": ("으로", "로"),
    "이다": ("이다", "다"),
    "아": ("아", "야"),
    "(이)": ("이", ""),  # what stands before 나, 며, 다
}


def final(word: str) -> int:
    """Index of the final consonant of the last syllable or digit of `word` (0: none, 8: ㄹ).

    Raises ValueError for a word that ends in neither, because no particle could be chosen for it.
    """
    last = word[-1:]
    if "가" <= last <= "힣":
        return (ord(last) - 0xAC00) % 28
    if last in _DIGIT_FINALS and last:
        return _DIGIT_FINALS[last]
    raise ValueError(f"{word!r} ends in no Hangul syllable or digit, so its particle is unknown; give it in Hangul")


def particles(word: str, kind: str) -> tuple[str, str]:
    """`(right, wrong)` particle after `word`; `kind` is the closed form: 은, 이, 을, 과, 으로, 이다, 아 or (이)."""
    closed, opened = _PAIRS[kind]
    code = final(word)
    takes_open = code == 0 or (kind == "으로" and code == 8)  # 연필로, not 연필으로
    return (opened, closed) if takes_open else (closed, opened)


def josa(word: str, kind: str) -> str:
    """`word` with its particle: `josa("사과", "을") == "사과를"`, `josa("빵", "을") == "빵을"`."""
    return word + particles(word, kind)[0]
