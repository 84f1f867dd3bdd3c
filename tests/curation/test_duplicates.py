"""Near duplicates: those of a similarity of 0.8 or more, verified; nothing else goes, and always the same goes."""

from __future__ import annotations

from random import Random

import numpy as np

from whet import starter
from whet.curation.duplicates import SHINGLE, SIMILAR, jaccard, near_duplicates, signatures
from whet.curation.units import shingles, units_of
from whet.events import Stage, ignore


def found(texts: list[str], protected: set[int] = frozenset(), seed: int = 0) -> dict[int, int]:  # type: ignore[assignment]
    keys = np.concatenate([signatures(texts[i : i + 50], seed) for i in range(0, len(texts), 50)])
    stage = Stage(ignore, "near duplicates", 2 * len(texts))
    return near_duplicates(keys, np.arange(len(texts)), texts.__getitem__, protected.__contains__, stage)


def similarity(one: str, other: str) -> float:
    return jaccard(*(shingles(units_of([text]), SHINGLE)[0] for text in (one, other)))


def changed(rng: Random, text: str, words: int) -> str:
    found = text.split(" ")
    for _ in range(words):
        found[rng.randrange(len(found))] = rng.choice(["other", "다른", "7"])
    return " ".join(found)


def test_all_that_are_similar_go_and_nothing_else() -> None:
    rng = Random(0)
    clean = ["".join(starter.documents(seed, 6)) for seed in range(150)]
    texts = clean + [changed(rng, text, rng.randint(1, 12)) for text in clean]
    similar = {150 + i: i for i, text in enumerate(clean) if similarity(text, texts[150 + i]) >= SIMILAR}
    assert 30 < len(similar) < 145  # the law is tried on either side of the threshold
    assert found(texts) == similar
    assert {*found(texts, seed=1)} == {*similar}


def test_similarity_is_that_of_sets() -> None:
    assert similarity("a b c d", "a b c d") == 1
    assert similarity("a b c d", "a b c e") == 1 / 3
    assert similarity("", "") == 0


def test_a_chain_ends_where_nothing_that_stays_is_similar() -> None:
    """Each text is like its neighbours, the last is not like the first: what stays is never far from what went."""
    rng, words = Random(1), [f"word{i}" for i in range(100)]
    chain = [" ".join(words)]
    for _ in range(12):
        chain.append(changed(rng, chain[-1], 2))
    gone = found(chain)
    assert gone and len(gone) < len(chain) - 1
    for later, earlier in gone.items():
        assert earlier not in gone and earlier < later and similarity(chain[later], chain[earlier]) >= SIMILAR


def test_of_hundreds_of_one_kind_one_stays_and_what_is_protected() -> None:
    text = " ".join(f"word{i}" for i in range(60))
    many = [f"{text} end{i}" for i in range(300)]
    assert {*found(many)} == {*range(1, 300)}
    assert {*found(many, protected={7, 250})} == {*range(1, 300)} - {7, 250}


def test_texts_without_units_are_like_nothing() -> None:
    assert found(["…", "!!!", "", "one", "One."]) == {4: 3}
