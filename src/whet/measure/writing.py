"""Figures of texts that models write: how alike two are, how much one repeats itself, which script it is in."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from whet.measure.statistics import independent_items, paired_difference

ORDER, BETA = 6, 2  # of chrF, as in chrF2
REPEATED = 4  # tokens in a row that count as repeated where they come again
BROKEN = "\ufffd"


def chrf(text: str, reference: str) -> float:
    """chrF2 of a text, 0 to 1: the F2 score of shared character n-grams, 1 to 6 long, white space left out.

    Precision and recall are means over the lengths that both have n-grams of (Popović, WMT 2015, 392-395; the same as
    sacrebleu's sentence chrF, by which the tests go, over 100). Two texts without letters: 1.
    """
    first, second = ("".join(unicodedata.normalize("NFC", one).split()) for one in (text, reference))
    if first == second:
        return 1.0
    precision = recall = 0.0
    orders = 0
    for n in range(1, ORDER + 1):
        mine, theirs = (Counter(one[i : i + n] for i in range(len(one) - n + 1)) for one in (first, second))
        if mine and theirs:
            shared = (mine & theirs).total()
            precision, recall, orders = precision + shared / mine.total(), recall + shared / theirs.total(), orders + 1
    if not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def same_until(first: Sequence[int], second: Sequence[int]) -> float:
    """The share of the longer of two texts before their first different token; 1 for equal ones."""
    longest = max(len(first), len(second))
    if not longest:
        return 1.0
    place = next((i for i, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    return (min(len(first), len(second)) if place is None else place) / longest


def repetition(tokens: Sequence[int]) -> float:
    """The share of runs of 4 tokens that came before in the text."""
    runs = [tuple(tokens[i : i + REPEATED]) for i in range(len(tokens) - REPEATED + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def distinct(tokens: Sequence[int]) -> float:
    """Different pairs of tokens over all pairs of a text (distinct-2: Li and others, NAACL 2016); 1 without pairs."""
    pairs = [tuple(tokens[i : i + 2]) for i in range(len(tokens) - 1)]
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def whole_letters(text: str) -> str:
    """A text without the part of a letter that a limit of tokens cut at either end."""
    return re.sub(f"^{BROKEN}{{1,3}}|{BROKEN}{{1,3}}$", "", text)


def change_of_share(before: Sequence[bool], after: Sequence[bool], clusters: Sequence[int]) -> dict[str, Any]:
    """The change of a share from `before` to `after` of the same texts, as `Reading` has it: its value, a score
    interval that counts clusters where texts depend on each other, and either share."""
    flips = [int(second) - int(first) for first, second in zip(before, after, strict=True)]
    groups = len(set(clusters))
    weight = independent_items(flips, clusters) / len(flips) if groups > 1 else 1 / len(flips)
    ends = paired_difference(flips.count(-1) * weight, flips.count(1) * weight, len(flips) * weight)
    return {
        "value": float(np.mean(flips)),
        "interval": ends,
        "original": float(np.mean(before)),
        "lighter": float(np.mean(after)),
    }
