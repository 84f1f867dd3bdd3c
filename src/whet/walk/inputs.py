"""Inputs of linears rounded while a block runs, so that whoever looks at the lighter stream sees what its runtime will.

Hooks on the modules of a block do it, before any that listen. Gradients pass straight through the rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from whet.anatomy import Linear
from whet.grids import InputGrid


class RoundedInputs:
    """How the inputs of a model's linears are rounded.

    grids: by address of a linear. scales: by address too, the stored scale `[1]` of those that have one; an input whose
    scale is not there yet stays as it is. on: whether anything is rounded now.
    """

    def __init__(self, grids: Mapping[str, InputGrid]) -> None:
        self.grids = grids
        self.scales: dict[str, Tensor] = {}
        self.on = True

    def listening(
        self, block: nn.Module, linears: Sequence[Linear], prefix: str, when: Callable[[], bool] = lambda: True
    ) -> list[RemovableHandle]:
        """Hooks that round inputs of `linears` of a `block` whenever `when` says so."""
        handles, hooked = [], set()
        for linear in linears:
            name = linear.held.parameter.removeprefix(prefix).rpartition(".")[0]
            if linear.address in self.grids and name not in hooked:
                hooked.add(name)
                hook = self._hook(linear.address, self.grids[linear.address], when)
                handles.append(block.get_submodule(name).register_forward_pre_hook(hook))
        return handles

    def _hook(self, address: str, grid: InputGrid, when: Callable[[], bool]):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if not self.on or not when() or (grid.scale_part is not None and address not in self.scales):
                return None
            x = args[0]
            with torch.no_grad():
                rounded = grid.rounded(x.detach(), self.scales.get(address))
            return (x + (rounded - x).detach() if x.requires_grad else rounded, *args[1:])

        return hook
