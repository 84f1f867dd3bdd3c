"""Which blocks go: in what order a model can do without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from whet.anatomy import Anatomy
from whet.apply.agreement import agreement
from whet.checkpoint import Checkpoint
from whet.events import OnEvent, Stage
from whet.walk.omit import BASE, Omissions


def blocks_to_take(
    importance: str,
    checkpoint: Checkpoint,
    parts: Anatomy,
    batches: Sequence[Tensor],
    count: int,
    device: str,
    folder: Path | None,
    on_event: OnEvent,
) -> list[int]:
    """`count` blocks in the order in which they are taken.

    `divergence`: one after another, each time the one without which the model's predictions differ least from the
    original's (KL; FinerCut, Zhang et al. 2024, arXiv 2405.18218, for whole blocks). `perplexity`: without which the
    text is predicted best (BlockPruner, Zhong et al. 2024, arXiv 2406.10594). `influence`: all at once, those whose
    output is most like their input, by cosine (ShortGPT, Men et al. 2024, arXiv 2403.03853).
    """
    omissions = Omissions(checkpoint, parts, batches, device, folder)
    if importance == "influence":
        return _least_influence(omissions, count, on_event)
    rounds = Stage(on_event, "depth", count * len(parts.blocks))
    head = checkpoint.read((parts.head or parts.embedding).parameter).to(device).float()
    original = finals(omissions.go((), {})[BASE], len(batches))
    gone: list[int] = []
    while len(gone) < count:
        left = [index for index in range(len(parts.blocks)) if index not in gone]
        ends = omissions.go(gone, {index: index for index in left}, rounds.step)
        losses = {}
        for index in left:
            pairs = zip(original, finals(ends[index], len(batches)), strict=True)
            found = agreement(omissions.skeleton, batches, pairs, head, head)
            losses[index] = found.kl if importance == "divergence" else found.surprise
        gone.append(min(left, key=lambda index: losses[index]))
        rounds.reach(len(gone) * len(parts.blocks))
    return gone


def finals(end: Callable[[int], Tensor], count: int) -> list[Tensor]:
    """What the head reads of each of `count` batches."""
    return [end(number) for number in range(count)]


def _least_influence(omissions: Omissions, count: int, on_event: OnEvent) -> list[int]:
    parts = omissions.anatomy
    stage = Stage(on_event, "depth", len(parts.blocks))
    likeness = omissions.likeness(stage.step)
    return sorted(range(len(parts.blocks)), key=lambda index: (-likeness[index], index))[:count]
