"""Second moments of linears' inputs, H = E[x xᵀ], gathered while a block runs. One per distinct input, in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from whet.anatomy import Linear
from whet.errors import UsageError

# Columns of H computed at a time; what lies above the diagonal is mirrored, which saves almost half of the work.
_STRIPS = 8


class HeardEnough(Exception):
    """Raised inside a block's forward when every input was seen: what comes after it is not needed."""


class SecondMoments:
    """`mean(reads)` is `[in, in]`, over tokens; linears that read the same input share one.

    Only the lower triangle is summed up, in strips; `mean` mirrors it.
    """

    def __init__(self, linears: list[Linear], prefix: str) -> None:
        self.prefix = prefix
        self.first: dict[str, Linear] = {}
        for linear in linears:
            self.first.setdefault(linear.reads, linear)
        self.sums: dict[str, Tensor] = {}
        self.tokens = 0
        self.heard = 0

    @contextlib.contextmanager
    def listening(self, block: nn.Module) -> Iterator[None]:
        """Add what flows into the linears of `block`; a forward ends with `HeardEnough` after the last of them."""
        handles = [
            block.get_submodule(linear.address.removeprefix(self.prefix)).register_forward_pre_hook(self._hook(reads))
            for reads, linear in self.first.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def add(self, reads: str, x: Tensor) -> None:
        """Add inputs `[tokens, in]`. Raises UsageError naming the linear at the first input that is not finite."""
        x = x.float()
        if reads not in self.sums:
            self.sums[reads] = x.new_zeros(x.shape[1], x.shape[1])
        if not torch.isfinite(x.sum(dtype=torch.float64)):
            bad = ~torch.isfinite(x)
            token = int(bad.any(1).nonzero()[0])
            raise UsageError(
                f"{self.first[reads].address}: {int(bad.sum())} inputs are NaN or infinite, first at token "
                f"{self.tokens + token}. The original overflows on this text, in float32: its weights are damaged "
                "or the config is not its own. Try other text (--text), then another download."
            )
        width = x.shape[1]
        step = -(-width // _STRIPS)
        for start in range(0, width, step):
            self.sums[reads][start:, start : start + step].addmm_(x[:, start:].t(), x[:, start : start + step])

    def mean(self, reads: str) -> Tensor:
        """H of one input."""
        lower = self.sums[reads].tril()
        return lower.add_(lower.tril(-1).t()).div_(max(self.tokens, 1))

    def _hook(self, reads: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.add(reads, args[0].reshape(-1, args[0].shape[-1]))
            self.heard += 1
            if self.heard % len(self.first) == 0:
                raise HeardEnough

        return hook
