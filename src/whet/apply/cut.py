"""One pass in which blocks lose channels and heads: chosen block after block, on what the blocks before have become.

What goes is 0 in the columns of the linear that reads it, which computes what the smaller model will (`anatomy.surgery`
takes the zeros out when the block is written). The linears that write to the residual stream are fitted anew to what
the original's stream is behind them: so they make up for what went of their own inputs, and for what the blocks before
them lost, whole blocks among it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from whet.anatomy import Kept, Linear, columns, zeroed
from whet.anatomy.surgery import READERS
from whet.pruning.channels import best_units
from whet.pruning.least_squares import Regression, refitted
from whet.walk import BlockStep
from whet.walk.skeleton import hooked

_TINY = 1e-12
_ADDS = 1e-3  # of what a linear gives, how much may not arrive on the stream before it counts as not added to it


@dataclass(frozen=True)
class Cutting:
    """What goes. layers: the blocks that stay. counts: by unit (`channels`, `heads`) how many every block has. amounts:
    by unit and block how many stay, of blocks that lose some; with 0 the sub-block goes. experts: by block those that
    stay. importance: by unit, by what it is chosen. repair: whether what stays makes up for what goes. dtype: the type
    that weights are stored in. orders: by unit and block in what order they stay, the first ones, where that was found
    before."""

    layers: tuple[int, ...]
    counts: Mapping[str, int]
    amounts: Mapping[str, Mapping[int, int]]
    importance: Mapping[str, str]
    repair: bool
    dtype: torch.dtype
    experts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    orders: Mapping[str, Mapping[int, Sequence[int]]] = field(default_factory=dict)

    def amount(self, unit: str, index: int) -> int | None:
        """How many of a unit stay in a block; None: all of them."""
        return self.amounts.get(unit, {}).get(index)


@dataclass(frozen=True)
class Done:
    """A block that was cut: by unit what stays of it, the weights by address that changed, and by address the ridge
    they were fitted with (None: they stayed as they were)."""

    kept: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, Tensor]
    ridges: Mapping[str, float | None]


class Cutter:
    """Visits every block of a walk in which the original stream follows. solving: how many batches are calibrated on;
    the others tell what helps. earlier: a block that is cut already, or None. on_block: what is done with each."""

    def __init__(
        self,
        cutting: Cutting,
        solving: int,
        earlier: Callable[[int], Done | None] = lambda index: None,
        on_block: Callable[[int, Done], None] = lambda index, done: None,
    ) -> None:
        self.cutting, self.solving, self.earlier, self.on_block = cutting, solving, earlier, on_block
        self.kept: dict[str, dict[int, tuple[int, ...]]] = {unit: {} for unit in READERS}

    def chosen(self) -> Kept:
        """What stays, once every block was visited."""
        return Kept(self.cutting.layers, self.kept["channels"], self.kept["heads"], self.cutting.experts)

    def visit(self, step: BlockStep) -> Mapping[str, Tensor] | None:
        """Cuts a block."""
        if step.index not in self.cutting.layers:
            return None
        done = self.earlier(step.index)
        if done is None:
            done = self._cut(step)
            self.on_block(step.index, done)
        for unit, mine in done.kept.items():
            self.kept[unit][step.index] = mine
        return done.weights

    def _cut(self, step: BlockStep) -> Done:
        """Attention first: what a feed-forward reads is what attention gives afterwards."""
        kept: dict[str, tuple[int, ...]] = {}
        weights: dict[str, Tensor] = {}
        ridges: dict[str, float | None] = {}
        before = _Before(step, self.cutting)
        for unit in ("heads", "channels"):
            readers = [x for x in step.linears if x.role == READERS[unit]]
            order = self.cutting.orders.get(unit, {}).get(step.index)
            amount = self.cutting.amount(unit, step.index)
            if not readers or not (amount is not None or order is not None or self.cutting.repair):
                continue
            (reader,) = readers
            w = step.weight(reader).clone()
            count = 1 if amount is None and order is None else self.cutting.counts[unit]
            keep = count if amount is None else amount
            if keep == 0 or (order is not None and not self.cutting.repair):  # nothing has to be known of its inputs
                kept[unit] = tuple(order or ())[:keep]
                weights[reader.address] = zeroed(w, kept[unit], count)
                continue
            last = unit == "channels" or self.cutting.amount("channels", step.index) == 0
            solve, judge = before.regressions(reader, weights, self.solving, last)
            mine = list(order or range(count))[:keep]
            if order is None and keep < count:
                mine = best_units(self.cutting.importance[unit], w, solve.h, count, keep)
            if order is not None or keep < count:
                kept[unit] = tuple(mine)
            if self.cutting.repair:
                at = columns(mine, count, w.shape[1]).to(w.device)
                weights[reader.address], ridges[reader.address] = refitted(w, at, solve, judge)
            else:
                weights[reader.address] = zeroed(w, mine, count)
            # what is written is what the blocks behind are given
            weights[reader.address] = weights[reader.address].to(self.cutting.dtype).float()
        return Done(kept, weights, ridges)


class _Before:
    """What a block's writers are to give, from both streams. Everything that the original stream is needed for is asked
    of it as it stands before the block, and then once behind it."""

    def __init__(self, step: BlockStep, cutting: Cutting) -> None:
        self.step, self.repair, self.layers = step, cutting.repair, cutting.layers
        self.followed = False

    def regressions(
        self, reader: Linear, weights: Mapping[str, Tensor], solving: int, last: bool
    ) -> tuple[Regression, Regression | None]:
        """Moments of what `reader` reads on the lighter stream, with `weights` (by address) in the block already, and
        of what it is to give: on the solving batches, and on the others where there are any. last: whether nothing in
        the block writes after it."""
        count = len(self.step.walk.lighter)
        if last:
            self._follow(count)
            self._pass_gone()
        found = []
        for batches in (range(solving), range(solving, count)):
            found.append(self._moments(reader, weights, batches, last) if len(batches) else None)
        if not last:
            self._follow(count)
        assert found[0] is not None
        return found[0], found[1]

    def _follow(self, count: int) -> None:
        """The original stream goes through the block."""
        if self.repair and not self.followed:
            self.step.target(count - 1)
            self.followed = True

    def _pass_gone(self) -> None:
        """The original stream goes through the blocks right behind that go: what they add, this block is to add."""
        index, last = self.step.index + 1, len(self.step.walk.skeleton.anatomy.blocks)
        while self.repair and index < last and index not in self.layers:
            self.step.walk.pass_ahead(index)
            index += 1

    def _moments(self, reader: Linear, weights: Mapping[str, Tensor], batches: Sequence[int], last: bool) -> Regression:
        step, w = self.step, self.step.weight(reader)
        silent = {x.address: torch.zeros(x.shape, device=w.device) for x in (reader, *self._later(reader))}
        inside = {**weights, **(silent if self.repair else {})}
        h = torch.zeros(w.shape[1], w.shape[1], device=w.device)
        c = torch.zeros(w.shape, device=w.device)
        power, tokens, scale = 0.0, 0, None
        for batch in batches:
            with _heard(step, reader) as heard:
                without = step.forward(inside, batch)
            x = heard[0]
            if self.repair and scale is None:
                scale = self._scale(reader, inside, batch, without, x, w)
            if self.repair and scale:
                aim = step.walk.original[batch] if last else self._original(silent, reader, batch)
                missing = ((aim - without) / scale).reshape(-1, len(w))
                # blocks read the stream through a norm, so what counts of a token is its share of the stream's length
                length = aim.reshape(-1, len(w)).square().mean(1, keepdim=True).clamp_min(_TINY).rsqrt()
                x, missing = x * length, missing * length
            else:
                missing = x @ w.t()
            h.addmm_(x.t(), x)
            c.addmm_(missing.t(), x)
            power += missing.double().square().sum().item()
            tokens += len(x)
        return Regression(h / tokens, c / tokens, power / tokens)

    def _later(self, reader: Linear) -> list[Linear]:
        """What writes to the stream after `reader`."""
        down = READERS["channels"]
        return [x for x in self.step.linears if x.role.endswith(down)] if reader.role != down else []

    def _original(self, silent: Mapping[str, Tensor], reader: Linear, batch: int) -> Tensor:
        """The original stream behind `reader`, and before the writers after it."""
        return self.step.forward_original({a: z for a, z in silent.items() if a != reader.address}, batch)

    def _scale(
        self, reader: Linear, inside: Mapping[str, Tensor], batch: int, without: Tensor, x: Tensor, w: Tensor
    ) -> float:
        """What a writer's output is multiplied by on its way into the stream; 0 where it is not simply added to it, as
        behind a norm of its own."""
        added = (self.step.forward({**inside, reader.address: w}, batch) - without).reshape(-1, len(w)).double()
        given = (x @ w.t()).double()
        power = given.square().sum().item()
        scale = (added * given).sum().item() / power if power else 0.0
        off = (added - scale * given).square().sum().item()
        return scale if scale and off <= _ADDS**2 * added.square().sum().item() else 0.0


@contextlib.contextmanager
def _heard(step: BlockStep, reader: Linear) -> Iterator[list[Tensor]]:
    """Inputs `[tokens, in]` of a linear, float32, of the forward that runs inside."""
    heard: list[Tensor] = []

    def hook(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        heard.append(args[0].reshape(-1, args[0].shape[-1]).float())

    name = reader.held.parameter.removeprefix(step.prefix).rpartition(".")[0]
    with hooked([step.module.get_submodule(name).register_forward_pre_hook(hook)]):
        yield heard
