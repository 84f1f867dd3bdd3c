"""Shares: of languages in the text that stays, of quantiles and of the hardest documents."""

from __future__ import annotations

import hashlib
import re

import numpy as np
from numpy.typing import NDArray

from whet.curation.languages import parse_languages
from whet.curation.store import Store
from whet.errors import UsageError

_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def parse_share(told: str, option: str) -> float:
    """`40%` as 0.4. Raises UsageError for anything else, and for more than 100 %."""
    found = _PERCENT.fullmatch(told)
    if found is None or float(found[1]) > 100:
        raise UsageError("{option}: {told!r} is no share. Write a percentage, such as 40%.", option=option, told=told)
    return float(found[1]) / 100


def parse_quota(told: str) -> dict[str, float]:
    """`en=60%,ko=40%` as shares by language. Raises UsageError for what has another form or does not add up."""
    found: dict[str, float] = {}
    for one in told.split(","):
        name, equals, share = one.partition("=")
        if not equals:
            raise UsageError(
                "--quota {told!r}: {one!r} is no quota. Write LANGUAGE=SHARE, with commas between: en=60%,ko=40%.",
                told=told,
                one=one.strip(),
            )
        (language,) = parse_languages(name)
        if language in found:
            raise UsageError("--quota: {language} comes twice. Name each language once.", language=language)
        found[language] = parse_share(share, "--quota")
        if not found[language]:
            raise UsageError("--quota: {language} has a share of 0. Leave it out.", language=language)
    if abs(sum(found.values()) - 1) > 1e-6:
        raise UsageError(
            "--quota {told!r}: the shares add up to {sum:.4g} %, not to 100 %.",
            told=told,
            sum=100 * sum(found.values()),
        )
    return found


def parse_band(told: str) -> tuple[float, float]:
    """`5%-95%` as two quantiles. Raises UsageError for anything else."""
    low, dash, high = told.partition("-")
    if not dash:
        raise UsageError("--perplexity: {told!r} is no band. Write two shares, such as 5%-95%.", told=told)
    band = parse_share(low, "--perplexity"), parse_share(high, "--perplexity")
    if band[0] >= band[1]:
        raise UsageError("--perplexity: {told!r} is empty. Write the smaller share first: 5%-95%.", told=told)
    return band


def over_quota(
    store: Store, quota: dict[str, float], seed: int, first: NDArray[np.float32] | None = None
) -> NDArray[np.int64]:
    """Documents that are too many of their language, so that as much text as can stays in these shares of its bytes.

    Which of a language go is drawn with `seed` by their digests; with `first`, those of the highest value stay. Texts
    without a language (`und`) are beside the shares, and listed ones stay and count. Raises UsageError for a language
    of which there is no text.
    """
    staying = store.staying
    spoken = store.language[staying]
    numbers = {language: staying[spoken == store.languages.get(language, -1)] for language in quota}
    have = {language: int(store.bytes[mine].sum()) for language, mine in numbers.items()}
    for language, size in have.items():
        if not size:
            raise UsageError(
                "No text in {language} is left, and --quota asks for {share:.0%} of it. Give text in it, or leave it "
                "out.",
                language=language,
                share=quota[language],
            )
    whole = min(have[language] / share for language, share in quota.items())
    over = []
    for language, mine in numbers.items():
        chance = np.array([_drawn(store.digest(number), seed) for number in mine.tolist()])
        value = np.zeros(len(mine)) if first is None else -first[mine]
        order = mine[np.lexsort((chance, value, ~store.fixed[mine]))]
        sums = np.cumsum(store.bytes[order])
        # half a document more or less is nearer than none more
        over.append(order[sums - store.bytes[order] / 2 > quota[language] * whole])
    return np.sort(np.concatenate(over))


def _drawn(digest: str, seed: int) -> int:
    """Where a document stands in a random order."""
    return int(hashlib.blake2b(f"{seed} {digest}".encode(), digest_size=6).hexdigest(), 16)
