"""A residual stream made narrower, in a walk: directions that go are 0, and what reads the others is fitted anew.

The walk is through a turned checkpoint at its whole width: with zeros in the directions that go, it computes what the
narrower model does. Weights here are as the walk has them; files have them times a factor (`whet.anatomy.narrow`), and
in the model's type, to which they are rounded here too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whet.anatomy import Group, Linear, narrow_factor, stream
from whet.pruning.least_squares import Regression, refitted
from whet.walk import BlockStep, Walk
from whet.walk.skeleton import hooked

_TINY = 1e-12


@dataclass(frozen=True)
class Narrow:
    """kept: how many of the stream's directions stay, the first of them. width: how many there are. dtype: the type
    that weights are stored in."""

    kept: int
    width: int
    dtype: torch.dtype

    @property
    def factor(self) -> float:
        """What is added to the stream is so many times as large in files."""
        return narrow_factor(self.width, self.kept)

    def added(self, w: Tensor) -> Tensor:
        """Weights `[hidden, in]` of what is added to the stream, with zeros in the rows that go."""
        found = torch.zeros_like(w, dtype=torch.float32)
        found[: self.kept] = self._stored(w[: self.kept].float(), self.factor)
        return found

    def read(self, w: Tensor) -> Tensor:
        """Weights `[out, hidden]` of what reads the stream, with zeros in the columns that go."""
        found = torch.zeros_like(w, dtype=torch.float32)
        found[:, : self.kept] = self._stored(w[:, : self.kept].float(), 1 / self.factor)
        return found

    def table(self, embedding: Tensor) -> Tensor:
        """The embedding `[vocabulary, hidden]`."""
        return self.added(embedding.t()).t().contiguous()

    def _stored(self, w: Tensor, factor: float) -> Tensor:
        return (w * factor).to(self.dtype).float() / factor


class Readers:
    """What reads the stream in a block, group by group of one norm. solving: how many batches are calibrated on; the
    others tell what helps. repair: whether weights that stay make up for the directions that go, as far as these can be
    told from the others."""

    def __init__(self, step: BlockStep, narrow: Narrow, solving: int, repair: bool) -> None:
        self.step, self.narrow, self.solving, self.repair = step, narrow, solving, repair
        self.left = list(stream(step.walk.skeleton.anatomy, step.index).read)

    def fit(
        self, roles: Sequence[str], weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, float | None]]:
        """Weights by address of the readers of groups that have one of `roles` and were not fitted yet, and the ridges
        they were moved with. weights: what the block has already. Before the original stream goes through the block."""
        fitted: dict[str, Tensor] = {}
        ridges: dict[str, float | None] = {}
        for group in [one for one in self.left if any(x.role in roles for x in one.readers)]:
            self.left.remove(group)
            moments = self._moments(group, weights) if self.repair else None
            for linear in group.readers:
                w = self.step.weight(linear)
                if moments is not None:
                    w, ridges[linear.address] = fitted_readers(w, self.narrow.kept, moments)
                fitted[linear.address] = self.narrow.read(w)
        return fitted, ridges

    def _moments(self, group: Group, weights: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        count = len(self.step.walk.lighter)
        reader = group.readers[0]

        def states(batches: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in batches:
                with heard(self.step, reader) as before:
                    self.step.forward_original({}, batch)
                with heard(self.step, reader) as after:
                    self.step.forward(weights, batch)
                yield before[0], after[0]

        parts = (range(self.solving), range(self.solving, count))
        return [both_moments(states(batches)) for batches in parts if len(batches)]


def fitted_head(walk: Walk, narrow: Narrow, solving: int, head: Tensor) -> Tensor:
    """The head `[vocabulary, hidden]`, fitted to the original's logits, at the end of a walk."""
    parts = (range(solving), range(solving, len(walk.lighter)))
    moments = [
        both_moments((before.flatten(0, 1), after.flatten(0, 1)) for before, after in walk.pairs(batches))
        for batches in parts
        if len(batches)
    ]
    return narrow.read(fitted_readers(head.float(), narrow.kept, moments)[0])


def both_moments(states: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """E[y yᵀ] and E[x yᵀ] `[hidden, hidden]` of what a norm gives to the original, x, and to the lighter model, y."""
    h = c = torch.zeros(())
    tokens = 0
    for x, y in states:
        h, c, tokens = h + y.t() @ y, c + x.t() @ y, tokens + len(y)
    return h / tokens, c / tokens


def fitted_readers(w: Tensor, kept: int, moments: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, float | None]:
    """Weights `[out, hidden]` that read the `kept` first directions alone, and the ridge they were moved with. moments:
    of the text that is calibrated on, and of other text where there is any."""
    found = [Regression(h, w @ c, 0.0) for h, c in moments]
    return refitted(w, torch.arange(kept, device=w.device), found[0], found[1] if len(found) > 1 else None)


class StreamMoments:
    """Visits every block of a walk, which it leaves as it is, and sums up what norms give: `total [hidden, hidden]`,
    float64, of norms that weigh nothing, those of every reader alike."""

    def __init__(self, width: int) -> None:
        self.total = torch.zeros(width, width, dtype=torch.float64)

    def visit(self, step: BlockStep) -> Mapping[str, Tensor]:
        """Adds what the norms of a block are given."""
        for group in stream(step.walk.skeleton.anatomy, step.index).read:
            name = group.name.removeprefix(step.prefix)
            sums = torch.zeros((), dtype=torch.float64)

            def hook(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
                nonlocal sums
                sums = sums + normed(args[0])

            with hooked([step.module.get_submodule(name).register_forward_pre_hook(hook)]):
                for batch in range(len(step.walk.lighter)):
                    step.walk.run(step, step.walk.lighter[batch], batch)
            self.total += sums
        return {}


def normed(x: Tensor) -> Tensor:
    """Σ x xᵀ over states x `[…, hidden]`, each over its root mean square; float64, on the processor."""
    x = x.flatten(0, -2).float()
    x = x * x.square().mean(1, keepdim=True).clamp_min(_TINY).rsqrt()
    return (x.t() @ x).double().cpu()


@contextlib.contextmanager
def heard(step: BlockStep, reader: Linear) -> Iterator[list[Tensor]]:
    """Inputs `[tokens, in]` of a linear, float32, of the forward that runs inside."""
    found: list[Tensor] = []

    def hook(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        found.append(args[0].reshape(-1, args[0].shape[-1]).float())

    name = reader.held.parameter.removeprefix(step.prefix).rpartition(".")[0]
    with hooked([step.module.get_submodule(name).register_forward_pre_hook(hook)]):
        yield found
