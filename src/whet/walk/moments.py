"""Second moments of linears' inputs, H = E[x xᵀ], gathered while a block runs. One per distinct input, in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from whet.anatomy import Linear
from whet.errors import UsageError


class SecondMoments:
    """`moments[reads]` is `[in, in]`, the mean over tokens; linears that read the same input share one."""

    def __init__(self, linears: list[Linear], prefix: str) -> None:
        self.prefix = prefix
        self.first: dict[str, Linear] = {}
        for linear in linears:
            self.first.setdefault(linear.reads, linear)
        self.sums: dict[str, Tensor] = {}
        self.tokens = 0

    @contextlib.contextmanager
    def listening(self, block: nn.Module) -> Iterator[None]:
        """Add everything that flows into the linears of `block` meanwhile."""
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
        self.sums[reads].addmm_(x.t(), x)

    def mean(self, reads: str) -> Tensor:
        """H of one input."""
        return self.sums[reads] / max(self.tokens, 1)

    def _hook(self, reads: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.add(reads, args[0].reshape(-1, args[0].shape[-1]))

        return hook
