"""Transforms by name: what may be folded into the original, exactly, before anything is rounded.

A new one that finds factors for the columns of linears is its file and its row: `auto` tries it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whet.errors import UsageError, did_you_mean
from whet.peers import refuse_peers_word
from whet.quantize.awq import awq
from whet.quantize.readers import Found, Reader, Settle
from whet.quantize.smooth import smooth


@dataclass(frozen=True)
class Transform:
    """What is folded in; nothing, where nothing is said.

    find: factors for the columns of linears that read one input, which what gives it is divided by. rotates: the values
    of heads are turned by a basis each. stream: the whole residual stream is turned, for which the head has to be a
    tensor of its own. learned: bases are learned, and not drawn. judged: each group of linears takes of the others what
    keeps more of the whole, measured. text: whether it needs text.
    """

    find: Callable[[Sequence[Reader], Settle], Found] | None = None
    rotates: bool = False
    stream: bool = False
    learned: bool = False
    judged: bool = False

    @property
    def text(self) -> bool:
        """Whether it needs text: all but what is drawn."""
        return self.find is not None or self.learned or self.judged


def _smooth(readers: Sequence[Reader], settle: Settle) -> Found:
    return Found(settle(smooth(readers)))


TRANSFORMS = {
    "smooth": Transform(_smooth),
    "awq": Transform(awq),
    "rotate": Transform(rotates=True),
    "quarot": Transform(rotates=True, stream=True),
    "spinquant": Transform(rotates=True, stream=True, learned=True),
    "auto": Transform(judged=True),
}


def find_transform(name: str | None) -> Transform:
    """The row of `name`; of None one that folds in nothing. Raises UsageError with a did-you-mean."""
    if name is None:
        return Transform()
    if name not in TRANSFORMS:
        refuse_peers_word("transform", name)
        raise UsageError(
            "Transform {transform!r} is not known.{near} Transforms: {known}.",
            transform=name,
            near=did_you_mean(name, TRANSFORMS),
            known=", ".join(TRANSFORMS),
        )
    return TRANSFORMS[name]
