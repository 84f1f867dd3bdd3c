"""Which tokens stay: text of these has the same tokens, whatever kind the tokenizer is, and ids are renumbered wherever
they are named."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vocabularies
from vocabularies import KINDS, documents, trained
from whet.errors import UsageError
from whet.pruning.vocabulary import (
    Pieces,
    choose,
    closure,
    count,
    main_script,
    named_ids,
    new_decoder,
    new_settings,
    new_tokenizer,
    opened,
    scripts_in,
    scripts_of,
    tokenized,
)


def parts_of(kind, size=1200):
    text = trained(kind, size)
    return Pieces(json.loads(text), kind), opened(text, kind)


def cut(kind, texts, **options):
    """Chosen tokens, and both tokenizers."""
    pieces, before = parts_of(kind)
    rows = max(pieces.tokens.values()) + 1
    chosen = choose(pieces, rows, count(before, texts), **options)
    return chosen, before, opened(json.dumps(new_tokenizer(pieces, chosen.new)), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("least", [1, 4])
def test_text_of_kept_tokens_has_the_same_tokens(kind, least):
    texts = documents("ko")[:40]
    chosen, before, after = cut(kind, texts, least=least)
    assert len(chosen.ids) % 64 == 0
    assert after.get_vocab(with_added_tokens=True).keys() < before.get_vocab(with_added_tokens=True).keys()
    kept = set(chosen.ids)
    compared = 0
    lines = [line for text in (*documents("en"), *documents("ko", seed=1)) for line in text.splitlines()]
    for group in (texts, lines, vocabularies.STRINGS):
        for old, new in zip(tokenized(before, group), tokenized(after, group), strict=True):
            if least == 1 and group is texts:
                assert kept.issuperset(old)
            if kept.issuperset(old):
                assert [chosen.ids[number] for number in new] == old
                compared += 1
    assert compared > (60 if least == 1 else 10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_that_stay_keep_their_order_and_are_closed(kind):
    pieces, _ = parts_of(kind)
    chosen, before, after = cut(kind, documents("ko")[:40])
    assert closure(chosen.ids, pieces.parts) == set(chosen.ids)
    of_pieces = [number for number in chosen.ids if number in set(pieces.ids.values())]
    assert of_pieces == sorted(of_pieces)
    words = before.get_vocab(with_added_tokens=True)
    assert {token: words[token] for token in after.get_vocab()} == {
        token: chosen.ids[number] for token, number in after.get_vocab().items()
    }


@pytest.mark.parametrize("kind", ["bytes", "whole words", "pieces", "unigram, bytes"])
def test_what_has_no_token_is_read_as_bytes_and_comes_back(kind):
    _, before, after = cut(kind, documents("ko")[:40])
    for text in [*vocabularies.STRINGS, *documents("en")[:20]]:
        ids = after.encode(text, add_special_tokens=False).ids
        assert 0 not in ids  # <unk>
        assert after.decode(ids) == before.decode(before.encode(text, add_special_tokens=False).ids)


@given(st.data())
def test_any_words_may_stay(data):
    """Whatever subset of words the corpus is, its tokens stay the same under byte-level BPE of either sort."""
    words = data.draw(
        st.lists(st.sampled_from([w for d in documents()[:60] for w in d.split()]), min_size=1, max_size=9)
    )
    text = " ".join(words)
    for kind in ("bytes", "whole words", "unigram"):
        chosen, before, after = cut(kind, [text])
        old, new = (next(iter(tokenized(one, [text]))) for one in (before, after))
        assert [chosen.ids[number] for number in new] == old


def test_closing_takes_the_parts_of_every_merge():
    vocab = {t: i for i, t in enumerate(["a", "b", "c", "d", "ab", "bc", "abc", "cd", "abcd"])}
    model = {"type": "BPE", "vocab": vocab, "merges": ["a b", "b c", "ab c", "a bc", "c d"]}
    pieces = Pieces({"model": model, "added_tokens": []}, "x")
    assert closure([vocab["abc"]], pieces.parts) == {vocab[t] for t in ("abc", "ab", "bc", "a", "b", "c")}
    assert closure([vocab["abcd"]], pieces.parts) == {vocab["abcd"]}  # made of no merge
    left = new_tokenizer(pieces, {old: new for new, old in enumerate(sorted(closure([vocab["abc"]], pieces.parts)))})
    assert left["model"]["merges"] == ["a b", "b c", "ab c", "a bc"]


def test_the_piece_of_the_least_score_stays():
    """An unknown letter costs that and 10 more: with another least score, `abcd` would be an unknown `a` and `bcd`."""
    vocab = [["<unk>", 0.0], ["bcd", -1.0], ["ab", -25.0], ["cd", -25.0], ["zz", -45.0], ["▁", -2.0]]
    vocab += [[f"q{number}", -3.0] for number in range(90)]
    said = {"version": "1.0", "added_tokens": [], "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}}
    pieces, before = Pieces(said, "x"), opened(json.dumps(said), "x")
    assert before.encode("abcd").tokens == ["ab", "cd"]
    assert 4 in pieces.always(lambda _: False)
    for stays, same in (({0, 1, 2, 3, 4}, True), ({0, 1, 2, 3}, False)):
        new = {old: number for number, old in enumerate(sorted(stays))}
        after = opened(json.dumps(new_tokenizer(pieces, new)), "x")
        assert (after.encode("abcd").tokens == ["ab", "cd"]) == same


def test_a_large_vocabulary_takes_seconds():
    letters = [chr(0x4E00 + number) for number in range(400)]
    pairs = [(a, b) for a in letters for b in letters][:120_000]
    vocab = {token: number for number, token in enumerate([*letters, *(a + b for a, b in pairs)])}
    said = {"model": {"type": "BPE", "vocab": vocab, "merges": [list(pair) for pair in pairs]}, "added_tokens": []}
    pieces, started = Pieces(said, "x"), time.perf_counter()
    chosen = choose(pieces, len(vocab), dict.fromkeys(range(1000, 40_000), 1), scripts=scripts_of(["ko"]))
    assert len(new_tokenizer(pieces, chosen.new)["model"]["vocab"]) == len(chosen.ids)
    assert time.perf_counter() - started < 20


def test_without_closing_tokens_are_lost():
    """The check can fail: the tokens that a corpus uses are not enough to read it."""
    pieces, before = parts_of("bytes")
    texts = documents("ko")[:40]
    used = set(count(before, texts)) | pieces.always(lambda _: True)
    new = {old: number for number, old in enumerate(sorted(used))}
    after = opened(json.dumps(new_tokenizer(pieces, new)), "naive")
    lengths = [sum(map(len, tokenized(one, texts))) for one in (before, after)]
    assert lengths[1] > 1.05 * lengths[0]


def test_languages_stay_by_their_scripts():
    pieces, _ = parts_of("bytes")
    korean = scripts_of(["ko"])
    chosen, _, after = cut("bytes", [], scripts=korean)
    kept = set(chosen.ids)
    for piece, number in pieces.ids.items():
        if scripts_in(pieces.text(piece) or "") <= korean:
            assert number in kept
    gone = [piece for piece, number in pieces.ids.items() if number not in kept]
    assert gone and all(scripts_in(pieces.text(piece) or "") - korean for piece in gone)
    korean_text, english_text = (
        [sum(map(len, tokenized(one, documents(language)))) for one in (parts_of("bytes")[1], after)]
        for language in ("ko", "en")
    )
    assert korean_text[1] < 1.2 * korean_text[0] and english_text[1] > 1.2 * english_text[0]


def test_scripts():
    assert scripts_in("가a1, 🦊 漢ア") == {"HANGUL", "LATIN", "CJK", "KATAKANA"}
    assert scripts_in("１２ＡＢ ½ → ⠿ 々ー") == {"LATIN", "CJK", "KATAKANA"}
    assert scripts_in("ᚠ") == {"other"} and not scripts_in(" 12 +!?\n\t\u0301")
    assert scripts_of(["ko", "en-US", "cyrillic"]) == {"HANGUL", "LATIN", "CYRILLIC"}
    assert main_script("12 hello 안녕") == "LATIN" and main_script("12!") == ""
    with pytest.raises(UsageError, match=r"no language that whet knows.*ko"):
        scripts_of(["koo"])


def test_ids_are_renumbered_wherever_they_are_named():
    new = {5: 0, 7: 1, 9: 2}
    config = {
        "vocab_size": 10,
        "type_vocab_size": 10,
        "eos_token_id": [7, 9],
        "pad_token_id": -1,
        "bos_token_id": None,
        "hidden_size": 5,
        "text_config": {"vocab_size": 10, "image_token_index": 9},
        "suppress_tokens": [5, 9],
        "bad_words_ids": [[5, 7], [9]],
        "forced_decoder_ids": [[1, 9], [2, None]],
        "sequence_bias": [[[7, 9], -1.0]],
        "lang_to_id": {"<|ko|>": 7},
    }
    assert named_ids(config) == {5, 7, 9}
    assert new_settings(config, new, 10, 64) == {
        "vocab_size": 64,
        "type_vocab_size": 10,
        "eos_token_id": [1, 2],
        "pad_token_id": -1,
        "bos_token_id": None,
        "hidden_size": 5,
        "text_config": {"vocab_size": 64, "image_token_index": 2},
        "suppress_tokens": [0, 2],
        "bad_words_ids": [[0, 1], [2]],
        "forced_decoder_ids": [[1, 2], [2, None]],
        "sequence_bias": [[[1, 2], -1.0]],
        "lang_to_id": {"<|ko|>": 1},
    }
    decoder = {"added_tokens_decoder": {"9": {"content": "b"}, "5": {"content": "a"}}, "eos_token": "b"}
    assert new_decoder(decoder, new)["added_tokens_decoder"] == {"0": {"content": "a"}, "2": {"content": "b"}}


@pytest.mark.parametrize("kind", ["bytes", "wordpiece"])
def test_what_is_put_before_and_after_a_text_is_the_same(kind):
    chosen, before, after = cut(kind, documents("en")[:20])
    old, new = (one.encode(documents("en")[0]).ids for one in (before, after))
    assert [chosen.ids[number] for number in new] == old and old[0] == 1


def test_nothing_to_cut_is_refused():
    pieces, before = parts_of("bytes")
    with pytest.raises(UsageError, match="nothing to cut"):
        choose(pieces, 1200, count(before, documents()))
    with pytest.raises(UsageError, match="is a WordLevel"):
        Pieces({"model": {"type": "WordLevel"}}, "x")


def test_rows_without_a_token_that_are_named_stay_behind_all_tokens():
    pieces, before = parts_of("bytes")
    chosen = choose(pieces, 1300, count(before, documents("ko")[:40]), named=[1250])
    assert chosen.ids[-1] == 1250 and 1250 not in chosen.ids[:-1]
    opened(json.dumps(new_tokenizer(pieces, chosen.new)), "x")
