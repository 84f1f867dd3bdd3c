"""Grids of inputs: what a linear's inputs are rounded to while the model runs, as `FP8+fp8` says after the plus.

The arithmetic is compressed-tensors' own (`checkpoint.beside_whet.rounded_inputs`), which vLLM's kernels share:

- a scale for each token, found while the model runs (`int8`, `int4`, `fp8`);
- one scale for all tokens, which the folder holds (`int8-tensor`, `fp8-tensor`);
- a scale for each group of channels of a token (`nvfp4`, with one more scale that the folder holds, and `mxfp4`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from whet.checkpoint.beside_whet import rounded_inputs
from whet.checkpoint.table import scale_part
from whet.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class InputGrid:
    """Where the inputs of a linear may land.

    name: what a scheme has after its plus. bits, values: of a number, `int`, `e4m3` or `e2m1`. per: what shares a
    scale, a `token`, the `tensor` (all tokens there are) or a `group` of channels. group: how many channels.
    """

    name: str
    bits: int
    values: Literal["int", "e4m3", "e2m1"]
    per: Literal["token", "tensor", "group"]
    group: int = 0

    @property
    def scale_part(self) -> str | None:
        """The stored tensor `[1]` that its scale is in; None where scales are found while the model runs."""
        return scale_part(self.entry)

    @property
    def top(self) -> float:
        """The largest value of the grid, in scales."""
        return {"int": 2 ** (self.bits - 1) - 0.5, "e4m3": 448.0, "e2m1": 6.0}[self.values]

    @property
    def entry(self) -> dict[str, Any]:
        """How whet.json tells of it."""
        told = {"grid": self.name, "bits": self.bits, "values": self.values, "per": self.per}
        return told | ({"group": self.group} if self.group else {})

    @property
    def compressed(self) -> dict[str, Any]:
        """The `input_activations` of a config group of compressed-tensors."""
        kind = "int" if self.values == "int" else "float"
        told: dict[str, Any] = {"num_bits": self.bits, "type": kind, "symmetric": True, "strategy": self.per}
        told |= {"group_size": self.group or None, "dynamic": self.per != "tensor"}
        if self.name == "nvfp4":
            told |= {"strategy": "tensor_group", "dynamic": "local", "scale_dtype": "torch.float8_e4m3fn"}
        return told | ({"scale_dtype": "torch.uint8"} if self.name == "mxfp4" else {})

    def rounded(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Inputs `x [..., in]` as the runtime computes with them. scale: the stored one, `[1]`, where it has one."""
        return rounded_inputs(x, self.entry, scale)

    def scale_of(self, largest: float, dtype: torch.dtype) -> Tensor:
        """The stored scale `[1]` with which inputs up to `largest` are held."""
        if self.group == 16:  # as NVFP4's weights: largest scale 448, of which 6 are the largest value
            return torch.tensor([448.0 * 6.0 / max(largest, 1e-12)], dtype=torch.float32)
        scale = torch.tensor([largest / self.top]).to(dtype)
        return torch.where(scale == 0, torch.full_like(scale, torch.finfo(dtype).eps), scale)


INPUTS = {
    grid.name: grid
    for grid in (
        InputGrid("int8", 8, "int", "token"),
        InputGrid("int8-tensor", 8, "int", "tensor"),
        InputGrid("int4", 4, "int", "token"),
        InputGrid("fp8", 8, "e4m3", "token"),
        InputGrid("fp8-tensor", 8, "e4m3", "tensor"),
        InputGrid("nvfp4", 4, "e2m1", "group", 16),
        InputGrid("mxfp4", 4, "e2m1", "group", 32),
    )
}


def find_inputs(name: str) -> InputGrid:
    """The grid of inputs that `name` says. Raises UsageError with a did-you-mean."""
    said = name.strip().lower()
    if said not in INPUTS:
        raise UsageError(
            "Inputs {name!r} are not known.{near} After the plus of a scheme stands one of {known}.",
            name=name,
            near=did_you_mean(said, INPUTS),
            known=", ".join(INPUTS),
        )
    return INPUTS[said]
