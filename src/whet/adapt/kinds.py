"""The kinds of adapters: how each begins, how it is scaled, and at what rate it is trained unless one is named.

All are W + scale · B A `[out, in]` and are stored as PEFT has them. They begin as the base is, exactly but for PiSSA,
whose factors begin as a part of W that is taken out of it: B A − B₀ A₀.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.errors import UsageError, did_you_mean

# B `[out, r]` and A `[r, in]` that the factors of a weight `[out, in]` begin as.
Start = Callable[[Tensor, int, torch.Generator], tuple[Tensor, Tensor]]


def _usual(w: Tensor, rank: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """B of zeros, A uniform within ±1/√in (Hu et al. 2021, arXiv 2106.09685, as PEFT draws it)."""
    rows, columns = w.shape
    bound = 1 / math.sqrt(columns)
    return torch.zeros(rows, rank), (2 * torch.rand(rank, columns, generator=draws) - 1) * bound


def _leading(w: Tensor, rank: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """The `rank` leading directions of the weight (Meng et al. 2024, arXiv 2404.02948), each spread over both."""
    left, values, right = torch.linalg.svd(w.double(), full_matrices=False)
    root = values[:rank].sqrt()
    return (left[:, :rank] * root).float(), (root[:, None] * right[:rank]).float()


@dataclass(frozen=True)
class Kind:
    """A kind of adapter.

    start: what it begins as. alpha: over the rank, where none is named. rate: peak learning
    rate. sized: rows have trained lengths (DoRA). shared: modules of one role have one A (ShareLoRA). grouped: A is the
    same for all columns of a group of the base's grid, so that it merges into its zeros (QA-LoRA). inside: the start is
    a part of the base. rooted: scaled over the root of the rank.
    """

    name: str
    start: Start = _usual
    alpha: float = 2.0
    rate: float = 1e-3
    sized: bool = False
    shared: bool = False
    grouped: bool = False
    inside: bool = False
    rooted: bool = False

    def scale(self, alpha: float, rank: int) -> float:
        """What B A is multiplied by."""
        return alpha / (math.sqrt(rank) if self.rooted else rank)


KINDS: dict[str, Kind] = {
    "lora": Kind("lora"),
    "rslora": Kind("rslora", rooted=True, alpha=0.5),
    "dora": Kind("dora", sized=True),
    "pissa": Kind("pissa", start=_leading, alpha=1.0, inside=True),
    "sharelora": Kind("sharelora", shared=True),
    "qalora": Kind("qalora", grouped=True),
}
FULL, FULL_RATE = "full", 1e-4  # no adapter: every parameter is trained


def kind_names() -> list[str]:
    """What `adapter` may be."""
    return [*KINDS, FULL]


def find_kind(name: str) -> Kind | None:
    """The kind of that name; None of `full`. Raises UsageError for what is none."""
    if name == FULL:
        return None
    if name not in KINDS:
        raise UsageError(
            "Adapter {name} is not known.{near} Adapters: {known}.",
            name=name,
            near=did_you_mean(name, kind_names()),
            known=", ".join(kind_names()),
        )
    return KINDS[name]
