"""Particles follow the sound a word ends in."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from string import Formatter

import pytest

from whet.cli.phrases import PHRASES
from whet.korean import final, josa, particles, with_particles
from whet.messages import Message, catalogue, in_language
from whet.report.words import WORDS
from whet.starter.words import ADJECTIVES, COLORS, DICTIONARY, PEOPLE
from wording import each


@each(
    "word, kind, expected",
    [
        ("사과", "을", "사과를"),
        ("빵", "을", "빵을"),
        ("고양이", "은", "고양이는"),
        ("곰", "은", "곰은"),
        ("개", "이", "개가"),
        ("왕", "이", "왕이"),
        ("늑대", "과", "늑대와"),
        ("염소", "과", "염소와"),
        ("말", "과", "말과"),
        ("학교", "으로", "학교로"),
        ("역", "으로", "역으로"),
        ("연필", "으로", "연필로"),
        ("쌀", "이다", "쌀이다"),
        ("사과", "이다", "사과다"),
        ("10", "은", "10은"),
        ("22", "은", "22는"),
        ("37", "을", "37을"),
        ("45", "과", "45와"),
        ("61", "으로", "61로"),
    ],
)
def test_particle_of_known_words(word: str, kind: str, expected: str) -> None:
    assert josa(word, kind) == expected


def test_final_agrees_with_unicode_decomposition() -> None:
    for word in [*DICTIONARY.values(), *COLORS.values(), *(korean for korean, _ in PEOPLE.values())]:
        jamo = unicodedata.normalize("NFD", word[-1])
        assert (final(word) == 0) == (len(jamo) == 2), word


def test_digits_agree_with_how_they_are_read() -> None:
    for digit, read in zip("0123456789", "영일이삼사오육칠팔구", strict=True):
        assert particles(digit, "을") == particles(read, "을")
        assert particles(digit, "으로") == particles(read, "으로")


def test_a_word_without_a_known_sound_is_refused() -> None:
    for word in ("apple", "", "사과."):
        with pytest.raises(ValueError, match="Hangul"):
            josa(word, "은")


@each(
    "written, said",
    [
        ("config.json은(는)", "config.json은"),
        ("'models/tiny'을(를)", "'models/tiny'를"),
        ("model.gguf은(는)", "model.gguf는"),
        ("int4s-g64(으)로", "int4s-g64로"),
        ("Q8_0(으)로", "Q8_0으로"),
        ("W4A16(으)로", "W4A16으로"),
        ("MODEL(으)로 OUT을(를)", "MODEL로 OUT을"),
        ("GGUF이(가) BPE이(가)", "GGUF가 BPE가"),
        ("GPTQ와(과) AWQ을(를)", "GPTQ와 AWQ를"),
        ("vLLM이(가)", "vLLM이"),
        ("scheme이(가) block을(를)", "scheme이 block을"),
        ("out/lighter이(가)", "out/lighter가"),
        ("400MB(이)라고, 25%은(는)", "400MB라고, 25%는"),
        ("(파일)을(를) (0.5)은(는)", "(파일)을 (0.5)는"),
        ("*은(는)", "*은(는)"),  # no sound: both stay
    ],
)
def test_pairs_of_particles_are_resolved_by_how_a_word_is_read(written: str, said: str) -> None:
    assert with_particles(written) == said


def test_a_long_value_takes_no_time_to_find_its_particle() -> None:
    long = "a" * 1_000_000
    assert with_particles(long + "이(가)") == long + "가"


def test_translations_are_one_to_one() -> None:
    for table in (DICTIONARY, ADJECTIVES, COLORS):
        assert len(set(table.values())) == len(table)


# Words that the glossary of docs/adding.md has another for. 한계 is that of rate and distortion alone.
AVOIDED = (
    r"(?<![가-힣])글(?!자)|(?<!가우스 )(?<!왜곡 )한계|한도|관문|매개변수|(?<![가-힣])방식|혼합|"
    r"가벼운 모델|문맥|색인|푸는|풀었|풀린"
)


def test_one_word_stands_for_one_meaning() -> None:
    said = [*catalogue("ko").values(), *(korean for _, korean in [*PHRASES.values(), *WORDS.values()])]
    assert not [text for text in said if re.search(AVOIDED, text)]
    assert re.search(AVOIDED, "푸는 데 쓰지 않은 글") and re.search(AVOIDED, "한계를 지켰습니다")
    assert not re.search(AVOIDED, "글자 BPE, 가우스 한계")


def test_no_pair_of_particles_is_left_to_the_reader_after_a_name() -> None:
    """What stands before a pair of particles decides it: no sentence shows both for a name or a number."""
    for template, translation in catalogue("ko").items():
        fields = {name for _, name, _, _ in Formatter().parse(template) if name}
        if not any(pair in translation for pair in PAIRS):
            continue
        for value in ("config.json", "out/lighter", "W4A16", 7):
            with contextlib.suppress(ValueError, TypeError):  # a format that takes numbers alone
                told = in_language(Message(template, **dict.fromkeys(fields, value)), "ko")
                assert not any(pair in told for pair in PAIRS), told


PAIRS = ("은(는)", "이(가)", "을(를)", "와(과)", "(으)로")
