"""Texts side by side: figures agree with sacrebleu and by hand, and each loss in writing is seen by its figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from whet.errors import UsageError
from whet.measure.aspects import Reading
from whet.measure.aspects.generation import Pairs, Written, _languages, openings, read_prompts, write
from whet.measure.writing import bleu, bleu_counts, chrf, distinct, repetition, same_until, whole_letters

# what sacrebleu 2.6.0's CHRF().sentence_score(text, [reference]).score gives
SACREBLEU = [
    ("the cat sat on the mat", "the cat sat on a mat", 72.084832),
    ("나는 오늘 학교에 갔다.", "나는 어제 학교에 갔다.", 48.809524),
    ("abc", "xyz", 0.0),
    ("same", "same", 100.0),
    ("a", "ab", 55.555556),
    ("", "something", 0.0),
    ("하나 둘 셋 넷", "하나 둘 넷 셋 다섯 여섯", 20.995049),
]

# and BLEU(tokenize="intl").corpus_score(texts, [references]).score
CORPUS = [
    (
        ["the cat sat on the mat, didn't it?", "It costs 3.50 (or -4) dollars!"],
        ["the cat sat on a mat, did it?", "It costs 3.50 or 4 dollars!"],
        23.086832,
    ),
    (["나는 오늘 학교에 갔다.", "하나 둘 셋 넷"], ["나는 오늘 집에 갔다.", "하나 둘 넷 셋 다섯 여섯"], 19.006952),
    (["a b c d e"], ["a b c d e f g h"], 54.881164),
    (["same words as there are"], ["same words as there are"], 100.0),
    (["x y z u"], ["a b c d"], 0.0),
    (["가 나 다 라 3. 1,000 + 2"], ["가 나 다 마 3. 1,000 + 2"], 59.694918),
]


@pytest.mark.parametrize(("texts", "references", "score"), CORPUS)
def test_bleu_is_that_of_sacrebleu(texts: list[str], references: list[str], score: float) -> None:
    counts = sum(bleu_counts(*pair) for pair in zip(texts, references, strict=True))
    assert 100 * bleu(counts) == pytest.approx(score, abs=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "reference", "score"), SACREBLEU)
def test_chrf_is_sacrebleus(text: str, reference: str, score: float) -> None:
    assert 100 * chrf(text, reference) == pytest.approx(score, abs=1e-6)


def test_figures_of_a_text() -> None:
    assert same_until([1, 2, 3], [1, 2, 3]) == same_until([], []) == 1
    assert same_until([1, 2, 3, 4], [1, 2]) == 0.5 and same_until([1, 2, 3, 4], [1, 9, 3, 4]) == 0.25
    assert repetition([1, 2, 3]) == 0 and repetition([7] * 13) == pytest.approx(0.9)
    assert distinct([1, 2, 3]) == 1 and distinct([7] * 11) == pytest.approx(0.1) and distinct([5]) == 1
    assert whole_letters("\ufffd가나\ufffd\ufffd") == "가나" and whole_letters("가\ufffd나") == "가\ufffd나"


def test_a_change_of_a_share_is_paired_and_by_prompts() -> None:
    before, after = [True] * 40, [True] * 30 + [False] * 10
    change = Reading.changed("ends", before, after, list(range(40)))
    assert change.value == -0.25 and change.interval and change.interval[0] < -0.25 < change.interval[1] < 0
    twice = Reading.changed("ends", before, after, [i // 2 for i in range(40)])
    assert twice.interval and twice.interval[0] < change.interval[0]  # two texts of one prompt tell less


def pairs(original: list[str], lighter: list[str]) -> Pairs:
    sides = [[Written([1], text, True) for text in texts] for texts in (original, lighter)]
    return Pairs(sides[0], sides[1], list(range(len(original))), len(original))


def test_language_drift_is_told_for_each_script_both_ways() -> None:
    prompts = ["오늘 날씨는"] * 10 + ["The weather"] * 10
    ours = ["오늘은 매우 맑고 따뜻합니다"] * 10 + ["is warm and sunny"] * 10
    theirs = ["is warm and sunny"] * 9 + ["1234567890"] + ["is cold today, they say"] * 10
    korean, english = _languages(pairs(ours, theirs), prompts)
    assert (korean.of, korean.value, korean.original, korean.lighter) == ("hangul", -0.9, 1.0, pytest.approx(0.1))
    assert (english.of, english.value) == ("latin", 0)


def test_openings_are_how_documents_begin(tokenizer) -> None:
    made = openings(["abcdefgh" * 5, "abcdefgh" * 5, "ab", "가나다라마바사아"], tokenizer)
    assert made == ["abcdefghabcdefgh", "가나"]  # 8 bytes: two syllables and parts of a third, left out


def test_both_write_the_same_and_seeds_are_fixed(original, twin) -> None:
    for temperature in (0.0, 1.0):
        first, second = (
            write(engine, ["ab", "cd", "efgh"], chat=False, temperature=temperature, seed=3)
            for engine in (original, twin)
        )
        assert first == second and all(len(one.tokens) <= 48 for one in first)


def test_prompts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("하나\n\ntwo\ntwo\n", encoding="utf-8")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a\\nb"}\n{"prompt": "c"}\n', encoding="utf-8")
    assert read_prompts(tmp_path / "p.txt") == ["하나", "two"] and read_prompts(tmp_path / "p.jsonl") == ["a\nb", "c"]
    for name, held, said in (
        ("one.txt", "only\n", "fewer than two"),
        ("bad.jsonl", "{\n", "prompt 1: no JSON"),
        ("key.jsonl", '{"prompt": "a"}\n{"promt": "b"}\n', "prompt 2: there is no text"),
    ):
        (tmp_path / name).write_text(held, encoding="utf-8")
        with pytest.raises(UsageError, match=said):
            read_prompts(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")
