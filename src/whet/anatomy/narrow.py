"""The residual stream made narrower: what of a turned stream's first directions every tensor keeps.

The norms of a turned stream weigh nothing, so what they give is the stream over its root mean square. Of d directions k
stay. A model of width k divides by the mean over k, not over d; so what is added to the stream is made √(k/d) times as
large, with which the mean is the same as that over d (the norms' epsilon too), and what reads it √(d/k) times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch import arange as numbers

from whet.anatomy.folds import stream
from whet.anatomy.model import Anatomy, Linear
from whet.messages import Message

WIDTH = "hidden_size"  # the entry of config.json
Narrowed = dict[str, tuple[tuple[tuple[int, Tensor], ...], float]]  # by stored name: places that stay, and a factor


def why_not_narrowed(parts: Anatomy, config: Mapping[str, Any]) -> Message | None:
    """Why the stream cannot be turned and made narrower, if it cannot."""
    if parts.family.still:
        return parts.family.still
    if parts.task != "causal":
        return Message("it predicts no next token")
    if parts.unnamed:
        return Message("no table names {names}, which may read the residual stream", names=", ".join(parts.unnamed[:3]))
    if any(x.held.expert is not None for x in parts.linears()):
        return Message("experts read the residual stream by a router: take experts")
    if config.get(WIDTH) != parts.embedding.shape[1]:
        return Message("its config does not say how wide the residual stream is")
    for index in range(len(parts.blocks)):
        touched = stream(parts, index)
        covered = {x.address for group in touched.read for x in group.readers}
        covered |= {x.address for x in touched.writers}
        if touched.biases:
            return Message("{bias} is added to the residual stream", bias=touched.biases[0])
        apart = next((x for x in parts.blocks[index] if x.address not in covered), None)
        if apart is not None or not touched.read:
            name = parts.prefixes[index] if apart is None else apart.address
            return Message("what {name} reads and writes is in no table", name=name)
    return None


def factor(width: int, kept: int) -> float:
    """√(k/d): what is added to a stream of `kept` of `width` directions is made so many times as large."""
    return float((kept / width) ** 0.5)


def narrowed_block(parts: Anatomy, index: int, kept: int) -> Narrowed:
    """What the tensors of block `index` keep, of those that touch the stream."""
    first, scale = numbers(kept), factor(parts.embedding.shape[1], kept)
    touched = stream(parts, index)
    found: Narrowed = {}
    for group in touched.read:
        found |= {name: (((0, first),), 1.0) for name, _ in group.vectors}
        found |= {x.parameter: (((_inputs(x), first),), 1 / scale) for x in group.readers}
    found |= {x.parameter: (((1 - _inputs(x), first),), scale) for x in touched.writers}
    return found


def narrowed_rest(parts: Anatomy, kept: int) -> Narrowed:
    """The same of the tensors outside the blocks. The head is a tensor of its own, whether the original has one or
    not."""
    first, scale = numbers(kept), factor(parts.embedding.shape[1], kept)
    found: Narrowed = {parts.embedding.parameter: (((1, first),), scale)}
    if parts.head is not None:
        found[parts.head.parameter] = (((1, first),), 1 / scale)
    norms = [name for name in parts.other_tensors if parts.name(name).startswith(f"{parts.family.norm}.")]
    return found | {name: (((0, first),), 1.0) for name in norms}


def _inputs(linear: Linear) -> int:
    """The dimension of a stored tensor along which its inputs are."""
    return 0 if linear.transposed else 1
