"""Korean particles, chosen by the sound a word ends in.

A Hangul syllable is `0xAC00 + (initial * 21 + vowel) * 28 + final`, so its final consonant is the code modulo 28: 0 is
none, 8 is ㄹ. Numbers count as they are read aloud (`3` is 삼, with a final; `2` is 이, without).

`josa` is exact and refuses what is not Hangul or a number. `with_particles` is for sentences with names of files and
options in them: it reads Latin words as Koreans do, which has exceptions.
"""

from __future__ import annotations

import re

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


def with_particles(text: str) -> str:
    """`text` with 은(는), 이(가), 을(를), 와(과), (으)로 and (이) resolved by what stands before them.

    Quotes and brackets that close are passed over. A pair after something without a sound (`*`) stays as it is.
    """
    return _PAIR.sub(lambda found: _chosen(text[max(0, found.start() - 40) : found.start()], found[0]), text)


def _chosen(before: str, pair: str) -> str:
    code = _final_read(before.rpartition(" ")[2])
    if code is None:
        return pair
    closed, opened = _PAIRS[_WRITTEN[pair]]
    return opened if code == 0 or (pair == "(으)로" and code == 8) else closed


def _final_read(word: str) -> int | None:
    """The final consonant of `word` as Koreans read it (0: none, 8: ㄹ, 1: another), None where it has no sound."""
    said = word.rstrip("'\"`”’)]}>….,:;/")
    if said.endswith("%"):
        return 0  # 퍼센트
    if not said or not said[-1].isascii() or not said[-1].isalpha():
        return final(said) if said and ("가" <= said[-1] <= "힣" or said[-1] in _DIGIT_FINALS) else None
    letters = re.split(r"[^a-z]", said.lower())[-1]
    if not re.search("[aeiouy]", letters) or letters in _SPELLED:
        return {"l": 8, "r": 8, "m": 1, "n": 1}.get(letters[-1], 0)  # spelled: 엘, 알, 엠, 엔; others are open
    if letters.endswith(("l", "le")):
        return 8  # 모델, 파일
    return int(bool(re.search(r"(m|n|ng|me|ne|ck|pe|[aeiou][ckpt])$", letters)))  # 스킴, 링, 블록, 타입, 맵


_WRITTEN = {"은(는)": "은", "이(가)": "이", "을(를)": "을", "와(과)": "과", "(으)로": "으로", "(이)": "(이)"}
_PAIR = re.compile("|".join(map(re.escape, _WRITTEN)))
_SPELLED = {"api", "awq", "bpe", "gguf", "url"}  # read letter by letter in spite of a vowel
