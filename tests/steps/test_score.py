"""Questions that are scored: none that compare asks is left out, wherever the tokenizer sees its answer begin."""

from __future__ import annotations

import re

import torch

import models
from whet.measure.items import Item
from whet.recipe.inspect import inspect
from whet.steps.score import _LONGEST, _cut, _of_skills


class Merging:
    """A tokenizer that takes a space and the word after it together, as byte-level BPE does."""

    def __init__(self):
        self.known = {}

    def __call__(self, texts, **_):
        words = [re.findall(r" ?\S+| ", text) for text in texts]
        return {"input_ids": [[self.known.setdefault(word, len(self.known)) for word in row] for row in words]}


def test_a_choice_after_a_prompt_that_ends_in_a_space_is_scored():
    items = [Item("pick", f"question {i} is ", choices=("yes", "no"), label=i % 2) for i in range(4)]
    items += [Item("free", "two and two is", answer="four")]
    tokenizer = Merging()
    samples = _of_skills(items, tokenizer)
    counted = {name: sum(int(s.counted.sum()) for s in samples if s.name == name) for name in ("pick/en", "free/en")}
    assert counted == {"pick/en": 4, "free/en": 1}
    for sample in samples:
        for row, where in zip(sample.tokens, sample.counted, strict=True):
            answers = {tokenizer.known[word] for word in (" yes", " no", " four") if word in tokenizer.known}
            assert int(row[int(where.nonzero()[0]) + 1]) in answers


def test_of_a_long_prompt_the_end_is_kept_with_the_answer():
    prompt = list(range(3 * _LONGEST))
    begins, row = _cut(prompt, [*prompt, 7, 8])
    assert row[begins:] == [7, 8] and len(row) == _LONGEST and row[0] == prompt[-_LONGEST + 2]
    begins, row = _cut(prompt[:10], [*prompt[:10], *range(900)])
    assert begins == 10 and len(row) == _LONGEST
    begins, row = _cut(prompt, [*prompt, *range(2 * _LONGEST)])
    assert begins == 1 and len(row) == _LONGEST and row[1] == 0
    assert _cut([], [1, 2]) == (1, [1, 2])
    assert torch.tensor(row).dtype == torch.int64


def test_blocks_that_flatten_their_batch_are_scored(tmp_path):
    """OPT's feed-forward takes tokens of all texts as one list."""
    folder = models.make(tmp_path / "m", "opt")
    found = inspect(folder, text=models.documents(60), window=32)
    roles = {part["role"]: part["sensitivity"] for part in found["parts"]}
    assert min(roles.values()) > 0 and {"up", "down"} <= {*roles}
