"""What the starter is taught, and when: the mixture of documents changes as training goes on."""

from __future__ import annotations

import math
from typing import NamedTuple

STEPS = 6400  # of the shipped model


class Stage(NamedTuple):
    """A part of training, up to step `until`: what is taught, and how much.

    `quiet` scales how many of a question's own tokens count; `adam_share` is AdamW's learning rate as a share of
    Muon's; `mixture` are the shares of the kinds of document.
    """

    until: float
    quiet: float
    adam_share: float
    mixture: dict[str, float]


# Kinds of document and their shares in percent, one column for each mixture.
_KINDS = {
    # plain, copying, balanced, sums, opened, ordered, both ways, straight, converse, looking up, chaining, sums again
    "arithmetic_en": (13, 10, 16, 20, 17, 12.5, 12, 11, 10, 4.5, 6, 14),
    "arithmetic_ko": (12, 9, 16, 20, 17, 12.5, 12, 11, 10, 4.5, 6, 14),
    "logic_ordering mixed": (13, 16, 14, 11, 16, 16, 13, 6, 9, 2, 1, 1),
    "logic_ordering straight": (0, 0, 0, 0, 0, 0, 0, 10, 8, 0, 0, 0),
    "logic_ordering": (0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 30, 18),
    "logic_comparison mixed": (0, 0, 0, 0, 0, 5, 9, 3, 6, 1, 0, 0),
    "logic_comparison straight": (0, 0, 0, 0, 0, 0, 0, 8, 5, 0, 0, 0),
    "logic_comparison": (0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 3, 3),
    "logic_syllogism": (5, 2, 5, 4, 3, 6, 7, 8, 6, 6, 8, 6),
    "logic_syllogism converse": (0, 0, 0, 0, 0, 0, 0, 0, 5, 10, 4, 3),
    "logic_syllogism lookup": (0, 0, 0, 0, 0, 0, 0, 0, 0, 18, 4, 3),
    "logic_syllogism chained": (0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 6, 5),
    "facts": (16, 10, 12, 12, 6, 4, 2, 2, 2, 1, 1, 1),
    "facts opened": (0, 0, 0, 0, 7, 6, 7, 6, 6, 4, 5, 6),
    "fact_text": (6, 0, 2, 2, 2, 2, 2, 2, 2, 1, 2, 2),
    "translation_words": (7, 12, 8, 8, 4, 3, 2, 2, 2, 1, 1, 1),
    "translation_words opened": (0, 0, 0, 0, 5, 5, 5, 5, 4, 3, 4, 4),
    "translation_sentences": (10, 14, 6, 5, 7, 8, 3, 3, 3, 2, 3, 3),
    "translation_sentences backward": (0, 0, 0, 0, 0, 0, 8, 6, 6, 3, 4, 4),
    "format": (6, 23, 13, 12, 10, 10, 0, 0, 0, 0, 0, 0),
    "format spaced": (0, 0, 0, 0, 0, 0, 8, 7, 5, 2, 4, 4),
    "story_en": (6, 2, 4, 3, 3, 5, 5, 5, 5.5, 3.5, 4, 4),
    "story_ko": (6, 2, 4, 3, 3, 5, 5, 5, 5.5, 3.5, 4, 4),
}
PLAIN, _COPYING, _BALANCED, _SUMS, _OPENED, _ORDERED, _BOTH, _STRAIGHT, _CONVERSE, _LOOKING, _CHAINING, _AGAIN = (
    {kind: shares[column] / 100 for kind, shares in _KINDS.items()} for column in range(12)
)
# Each stage answers what the one before had left at chance. After 740 steps facts were known but nothing was copied
# from a question: so questions count less, copying is asked for more, and AdamW's rate falls (its noise was 0.1 nat).
# Sums broke at about step 1900. Facts are asked in openings from 1849 on, because three bare forms did not carry over
# to a fourth. The stages from 2816 on split two-step logic into its single steps; those from 3420 on give it more
# than half of the text, three quarters of that as lessons first. Sums had fallen to a half by 5040, so the last stage
# has more of them.
STAGES = [
    Stage(740, 1.0, 1.0, PLAIN),
    Stage(903, 0.3, 1.0, _COPYING),
    Stage(1351, 0.3, 0.25, _COPYING),
    Stage(1609, 0.3, 0.25, _BALANCED),
    Stage(1849, 0.3, 0.25, _SUMS),
    Stage(2088, 0.3, 0.25, _OPENED),
    Stage(2539, 0.3, 0.25, _ORDERED),
    Stage(2816, 0.3, 0.25, _BOTH),
    Stage(3311, 0.3, 0.25, _STRAIGHT),
    Stage(3420, 0.3, 0.25, _CONVERSE),
    Stage(4700, 0.3, 0.25, _LOOKING),
    Stage(5040, 0.3, 0.25, _CHAINING),
    Stage(math.inf, 0.3, 0.25, _AGAIN),
]


def stage_of(step: int, steps: int) -> Stage:
    """The stage of a step in a run of `steps`: a run of another length has the same stages, stretched."""
    return next(stage for stage in STAGES if step * STEPS / steps < stage.until)
