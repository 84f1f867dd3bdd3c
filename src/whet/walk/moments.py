"""Second moments of linears' inputs, H = E[x xᵀ], gathered while a block runs. One per distinct input, in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from whet.anatomy import Linear
from whet.errors import UsageError

# Squares on the diagonal of H up to this wide are computed whole; of larger ones only the lower triangle, which saves
# almost half of the work.
_WHOLE = 192


class HeardEnough(Exception):
    """Raised inside a block's forward when every input was seen: what comes after it is not needed."""


class SecondMoments:
    """`mean(reads)` is `[in, in]`, over tokens; linears that read the same input share one.

    Only the lower triangle is summed up; `mean` mirrors it.
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
        # thirty times faster than a look at every number, and a sum is not finite if one of its terms is not
        if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
            bad = ~torch.isfinite(x)
            token = int(bad.any(1).nonzero()[0])
            raise UsageError(
                f"{self.first[reads].address}: {int(bad.sum())} inputs are NaN or infinite, first at token "
                f"{self.tokens + token}. The original overflows on this text, in float32: its weights are damaged "
                "or the config is not its own. Try other text (--text), then another download."
            )
        _add_lower(self.sums[reads], x)

    def mean(self, reads: str) -> Tensor:
        """H of one input."""
        return _mirror(self.sums[reads] / max(self.tokens, 1))

    def _hook(self, reads: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.add(reads, args[0].reshape(-1, args[0].shape[-1]))
            self.heard += 1
            if self.heard % len(self.first) == 0:
                raise HeardEnough

        return hook


def _add_lower(h: Tensor, x: Tensor) -> None:
    """Add xᵀ x of `x [tokens, in]` to `h [in, in]`, right on and below the diagonal, anything above it."""
    width = len(h)
    if width <= _WHOLE:
        h.addmm_(x.t(), x)
        return
    half = width // 2
    h[half:, :half].addmm_(x[:, half:].t(), x[:, :half])
    _add_lower(h[:half, :half], x[:, :half])
    _add_lower(h[half:, half:], x[:, half:])


def _mirror(h: Tensor) -> Tensor:
    """`h [in, in]` with its lower triangle copied to the upper one, in place."""
    width = len(h)
    if width <= _WHOLE:
        return h.tril_().add_(h.tril(-1).t())
    half = width // 2
    h[:half, half:] = h[half:, :half].t()
    _mirror(h[:half, :half])
    _mirror(h[half:, half:])
    return h
