"""Units: what makes two texts the same, and hashes of many at once as of each alone."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from whet.curation import units
from whet.curation.units import normal, runs, shingles, units_of
from wording import each

WORDS = ["the", "cat", "Straße", "고양이가", "한", "日本", "ไทย", "3", "+", "-", "ﬁ", "é", "!", "…", "x_y", "\n"]


def texts(count: int, seed: int = 0) -> list[str]:
    rng = Random(seed)
    return ["".join(rng.choice(WORDS) + rng.choice(["", " "]) for _ in range(rng.randrange(12))) for _ in range(count)]


@each(
    "one, other, same",
    [
        ("Hello, World!", "hello world", True),
        ("안녕 하세요", "안녕하세요", True),
        ("ＡＢＣ １２３", "abc 123", True),
        ("각", "각", True),  # whole and in single letters
        ("3 + 4", "3 - 4", False),
        ("3 + 4", "34", False),
        ("the cat", "thecat", False),
        ("$5", "€5", False),
    ],
)
def test_what_counts_as_the_same(one: str, other: str, same: bool) -> None:
    first, second = units_of([one]), units_of([other])
    assert (first.hashes.tolist() == second.hashes.tolist()) is same


def test_a_batch_hashes_as_each_text_alone() -> None:
    some = texts(300)
    whole = units_of(some)
    assert whole.counts.sum() == len(whole.hashes) > 500
    for place, text in enumerate(some):
        alone = units_of([text])
        assert alone.hashes.tolist() == whole.hashes[whole.first[place] : whole.first[place + 1]].tolist()
        assert alone.wide[0] == whole.wide[place]
    for length in (1, 2, 3, 13):
        hashes, text = runs(whole, length)
        for place in range(0, len(some), 7):
            assert hashes[text == place].tolist() == runs(units_of([some[place]]), length)[0].tolist()


def test_a_long_text_is_hashed_in_pieces_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [" ".join(texts(40, seed=seed)) for seed in range(5)]
    whole = units_of(some)
    monkeypatch.setattr(units, "_AT_ONCE", 64)
    pieces = units_of(some)
    assert all((one == other).all() for one, other in zip(whole, pieces, strict=True)) and len(some[0]) > 300


def test_runs_are_equal_where_their_units_are_and_nowhere_else() -> None:
    some = texts(200, seed=1)
    whole = units_of(some)
    for length in (1, 3):
        hashes, _ = runs(whole, length)
        spelled = [
            tuple(whole.hashes[start : start + length].tolist())
            for first, last in zip(whole.first, whole.first[1:], strict=False)
            for start in range(first, last - length + 1)
        ]
        assert len(spelled) == len(hashes)
        assert len(set(spelled)) == len(set(hashes.tolist())) == len(set(zip(spelled, hashes.tolist(), strict=True)))


def test_shingles_are_a_set_and_of_a_short_text_all_it_has() -> None:
    hashes, text = shingles(units_of(["a b", "a b c a b c", "", "…"]), 3)
    assert np.bincount(text, minlength=4).tolist() == [1, 3, 0, 0]
    assert all((np.diff(hashes[text == place].astype(object)) > 0).all() for place in range(4))


def test_copies_have_one_normal_form() -> None:
    assert normal("Ａ  b\n c") == normal("a B C") != normal("a, b c")
