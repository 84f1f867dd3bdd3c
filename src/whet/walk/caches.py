"""Keys and values rounded while a block runs, so that whoever looks at the lighter stream sees what its runtime keeps.

A hook on the attention hands it a cache that keeps nothing and rounds what it is given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from whet.grids import CacheGrid

Rounding = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # of keys and values `[b, heads, n, width]`
_CACHE = "past_key_values"  # what attentions call it


class RoundedCache:
    """How the keys and values of a model's blocks are rounded.

    grid: None where they stay as they are. scales: by block, of keys and of values; a block whose scales are not there
    yet keeps them as they are. trial: what is done instead, while scales are looked for.
    """

    def __init__(self, grid: CacheGrid | None = None) -> None:
        self.grid = grid
        self.scales: dict[int, tuple[Tensor, Tensor]] = {}
        self.trial: Rounding | None = None

    def listening(self, block: nn.Module, index: int, when: Callable[[], bool]) -> list[RemovableHandle]:
        """Hooks on the attention of block `index` that round whenever `when` says so."""
        if self.grid is None:
            return []

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]):  # type: ignore[no-untyped-def]
            rounding = self._rounding(index) if when() else None
            return (args, kwargs if rounding is None else kwargs | {_CACHE: _Passing(rounding)})

        name = attention_in(block)
        return [] if name is None else [block.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)]

    def _rounding(self, index: int) -> Rounding | None:
        if self.trial is not None or index not in self.scales:
            return self.trial
        return lambda key, value: (
            self.grid.rounded(key, self.scales[index][0]),  # type: ignore[union-attr]
            self.grid.rounded(value, self.scales[index][1]),  # type: ignore[union-attr]
        )


class _Passing:
    """A cache that keeps nothing."""

    def __init__(self, rounding: Rounding) -> None:
        self.rounding = rounding

    def update(self, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.rounding(key, value)


def attention_in(block: nn.Module) -> str | None:
    """The name inside a `block` of the one module that is given the cache; None where there is none or several."""
    found = [
        name
        for name, module in block.named_modules()
        if name and _CACHE in inspect.signature(module.forward).parameters
    ]
    return found[0] if len(found) == 1 else None
