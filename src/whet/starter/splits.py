"""Which questions training may see: the key of a question decides.

Every question has a *key*, what it is about rather than how it is worded (the pair of numbers, the three names, the
subject and verb and object). The key alone decides the split it belongs to, so no wording, language or order of
training can touch a question of evaluation. Facts and words cannot be held out themselves: there the *form* of the
question is, and the key only divides what is asked between the splits of evaluation.
"""

from __future__ import annotations

import zlib

Question = tuple[str, str, str]  # prompt, answer, key
SPLITS = ("solve", "verify", "report", "held")


def split_of(key: str) -> str:
    """The split of a key: 1 in 20 each for solve, verify, report and held, the rest train (by CRC-32, so unseeded)."""
    place = zlib.crc32(key.encode()) % 20
    return SPLITS[place] if place < len(SPLITS) else "train"
