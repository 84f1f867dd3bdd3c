"""What a model loses where blocks lose channels, heads or sub-blocks: many moves measured in one pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from whet.anatomy import Anatomy, Linear, columns, zeroed
from whet.anatomy.surgery import READERS
from whet.apply.agreement import agreement
from whet.apply.depth import finals
from whet.checkpoint import Checkpoint
from whet.pruning.allocation import Amounts, Move
from whet.pruning.least_squares import Regression, refitted
from whet.walk.omit import BASE, BlockView, Omissions
from whet.walk.skeleton import hooked

_UNITS = ("channels", "heads")  # as `Amounts` has them


class Sweep:
    """Measures moves on `batches` (int64 `[b, L]`), by the KL to the original.

    counts: by unit how many every block has. orders: by unit and block all of them, those that are worth most first.
    fit: whether the linear that reads what stays is fitted to what it gave with all, as the finished model will be to
    more than that.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        parts: Anatomy,
        batches: Sequence[Tensor],
        counts: Mapping[str, int],
        orders: Mapping[str, Mapping[int, Sequence[int]]],
        fit: bool,
        device: str,
        folder: Path | None,
    ) -> None:
        self.batches, self.counts, self.orders, self.fit = batches, counts, orders, fit
        self.omissions = Omissions(checkpoint, parts, batches, device, folder)
        self.head = checkpoint.read((parts.head or parts.embedding).parameter).to(device).float()
        self.original = finals(self.omissions.go((), {})[BASE], len(batches))

    def losses(
        self, amounts: Sequence[Amounts], moves: Sequence[Move], on_block: Callable[[], None] = lambda: None
    ) -> tuple[float, list[float]]:
        """KL in nats a token of the model whose blocks have `amounts`, and of it after each of `moves`."""
        gone = [index for index, mine in enumerate(amounts) if not any(mine)]
        candidates: dict[Hashable, int] = {move: move.index for move in moves}
        ends = self.omissions.go(gone, candidates, on_block, _Weights(self, amounts))
        found = {}
        for name, end in ends.items():
            pairs = zip(self.original, finals(end, len(self.batches)), strict=True)
            found[name] = agreement(self.omissions.skeleton, self.batches, pairs, self.head, self.head).kl
        return found[BASE], [found[move] for move in moves]


class _Weights:
    """The weights of a block by its amounts; second moments of one block at a time are kept."""

    def __init__(self, sweep: Sweep, amounts: Sequence[Amounts]) -> None:
        self.sweep, self.amounts = sweep, amounts
        self.known: tuple[int, dict[str, Tensor]] = (-1, {})

    def __call__(self, view: BlockView, name: Hashable) -> Mapping[str, Tensor] | None:
        amounts = name.amounts if isinstance(name, Move) else self.amounts[view.index]
        return self._of(view, amounts) if any(amounts) else None

    def _of(self, view: BlockView, amounts: Amounts) -> dict[str, Tensor]:
        found = {}
        for unit, number in zip(_UNITS, amounts, strict=True):
            if number < self.sweep.counts[unit]:
                reader = _reader(view, unit)
                found[reader.address] = self._cut(view, unit, reader, number)
        return found

    def _cut(self, view: BlockView, unit: str, reader: Linear, number: int) -> Tensor:
        w = reader.held.of(view.module.get_parameter(reader.held.parameter.removeprefix(view.prefix)).data)
        count = self.sweep.counts[unit]
        kept = self.sweep.orders[unit][view.index][:number] if number else ()
        if not self.sweep.fit or not number:
            return zeroed(w, kept, count)
        h = self._moment(view, unit, reader)
        at = columns(kept, count, w.shape[1]).to(w.device)
        return refitted(w, at, Regression(h, w @ h, 0.0), None)[0]

    def _moment(self, view: BlockView, unit: str, reader: Linear) -> Tensor:
        """Of what a reader reads of the stream that candidates leave, with that stream's attention before it."""
        if self.known[0] != view.index:
            self.known = (view.index, {})
        moments = self.known[1]
        if unit not in moments:
            heads = self.amounts[view.index][1]
            before = self._of(view, (self.sweep.counts["channels"], heads)) if unit == "channels" else {}
            total = torch.zeros(reader.shape[1], reader.shape[1], device=self.sweep.head.device)
            tokens = 0

            def hear(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
                nonlocal tokens
                x = args[0].reshape(-1, args[0].shape[-1]).float()
                total.addmm_(x.t(), x)
                tokens += len(x)

            name = reader.held.parameter.removeprefix(view.prefix).rpartition(".")[0]
            with hooked([view.module.get_submodule(name).register_forward_pre_hook(hear)]):
                for number in range(view.batches):
                    view.run(view.given(number), number, before)
            moments[unit] = total / tokens
        return moments[unit]


def _reader(view: BlockView, unit: str) -> Linear:
    return next(linear for linear in view.linears if linear.role == READERS[unit])
