"""Figures of texts that models write: how alike two are, how much one repeats itself, which script it is in."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from whet.measure.statistics import Floats

ORDER, BETA = 6, 2  # of chrF, as in chrF2
RUNS = 4  # words of the longest runs that BLEU counts
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


def bleu_counts(text: str, reference: str) -> Floats:
    """What BLEU is made of, and adds up over texts [2 + 2 * RUNS]: words of both, then of each length of runs those
    that the reference has too, and all."""
    mine, theirs = words_of(text), words_of(reference)
    found: list[float] = [len(mine), len(theirs)]
    for n in range(1, RUNS + 1):
        first, second = (Counter(tuple(one[i : i + n]) for i in range(len(one) - n + 1)) for one in (mine, theirs))
        found += [(first & second).total(), first.total()]
    return np.array(found, np.float64)


def bleu(counts: Floats) -> float:
    """BLEU, 0 to 1, of `bleu_counts` summed over texts: the geometric mean of the shares of runs of 1 to 4 words that
    the reference has too, less where texts are shorter.

    A length without a shared run counts as half of one, the next such as a fourth and so on, which is sacrebleu's
    smoothing `exp` (Papineni and others, ACL 2002, 311-318; the same as sacrebleu's corpus BLEU with its tokenizer
    `intl`, by which the tests go, over 100). No words at all on either side: 1.
    """
    words, wanted = counts[:2]
    shared, whole = counts[2::2], counts[3::2]
    if not words + wanted:
        return 1.0
    if not whole.all() or not shared.any():
        return 0.0
    logs, smoothing = 0.0, 1.0
    for found, of in zip(shared, whole, strict=True):
        smoothing *= 1 if found else 2
        logs += math.log(found / of if found else 1 / (smoothing * of))
    return math.exp(min(0.0, 1 - wanted / words) + logs / RUNS)


def words_of(text: str) -> list[str]:
    """Words as sacrebleu's tokenizer `intl` cuts them: at white space, around symbols, and around punctuation that
    stands beside something other than a number."""
    kinds = [unicodedata.category(letter)[0] for letter in text]
    out: list[str] = []
    for place, (letter, kind) in enumerate(zip(text, kinds, strict=True)):
        beside = kinds[max(0, place - 1) : place] + kinds[place + 1 : place + 2]
        apart = kind == "S" or (kind == "P" and any(other != "N" for other in beside))
        out.append(f" {letter} " if apart else letter)
    return "".join(out).split()


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
