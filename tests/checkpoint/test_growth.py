"""Tokenizers that make gigabytes of a word are refused, by what their files say; those that models have are not."""

from __future__ import annotations

import base64
import json

import pytest
from tokenizers import Regex, normalizers

import models
from whet.checkpoint import load_tokenizer
from whet.checkpoint.growth import growth
from whet.errors import UsageError


def table(*texts: str) -> dict[str, str]:
    """A normalizer as sentencepiece writes it: a trie of four bytes, and texts."""
    data = (4).to_bytes(4, "little") + bytes(4) + b"".join(text.encode() + b"\0" for text in texts)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def replace(pattern: str, content: str, kind: str = "String") -> dict:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def several(*parts: dict) -> dict:
    return {"type": "Sequence", "normalizers": [*parts]}


@pytest.mark.parametrize(
    ("part", "times"),
    [
        (replace(" ", "▁"), 1),
        (replace("ab", "cccc"), 2),
        (replace(" {2,}", " ", "Regex"), 1),
        (replace("x*", "cccc", "Regex"), 5),
        (replace("(?i:[", "cccc", "Regex"), 5),  # what Python cannot read may match nothing
        (several(replace("a", "b" * 10), {"type": "NFC"}, replace("b", "c" * 10)), 100),
        (table("a", "four"), 4),
        (several(replace("``", '"'), table("가" * 11), replace(" {2,}", " ", "Regex")), 33),
        ({"type": "NFKC"}, 1),
    ],
)
def test_growth_is_what_a_letter_may_become(part, times):
    assert growth(part) == times


@pytest.mark.parametrize(
    ("normalizer", "message"),
    [
        (normalizers.Replace("a", "b" * 100_000), r"normalizer of its tokenizer may make 1e\+05 letters of one"),
        (normalizers.Sequence([normalizers.Replace(a, b * 30) for a, b in ("ab", "bc")]), "may make 900 letters"),
        (normalizers.Replace(Regex("."), "ab" * 40), "makes 7.* letters of each"),
    ],
)
def test_a_tokenizer_that_multiplies_letters_is_refused(tmp_path, normalizer, message):
    folder = models.make(tmp_path / "m")
    file = folder / "tokenizer.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(kept | {"normalizer": json.loads(normalizer.__getstate__())}), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_tokenizer(folder)
    file.write_text(json.dumps(kept | {"normalizer": several(replace(" ", "▁"))}), encoding="utf-8")
    load_tokenizer(folder)
