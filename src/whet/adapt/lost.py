"""What rounding lost of a model, as the start of an adapter: EoRA's, or LoftQ's where second moments are too large.

LoftQ (Li et al. 2023, arXiv 2310.08659) takes the leading directions of W − Ŵ. With the second moment of the inputs
those directions count by what inputs have of them (EoRA). Codes stay as they are: of LoftQ's turns there is the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Module
from whet.checkpoint import Factors, rows_of
from whet.errors import UsageError
from whet.quantize import eora

_MOMENTS = 1 << 30  # bytes of all second moments at most
_WINDOWS = 16


@torch.no_grad()
def rounding_lost(
    model: Any, original: Any, modules: Sequence[Module], rank: int, windows: Sequence[Tensor]
) -> dict[str, Factors]:
    """Factors of `rank` of what `original` has and `model` has not, by module. windows: of tokens `[L]`, whose inputs
    tell what matters. Raises UsageError where the two are not of one shape."""
    mine, theirs = dict(model.named_modules()), dict(original.named_modules())
    for one in modules:
        if one.name not in theirs or theirs[one.name].weight.shape != mine[one.name].weight.shape:
            raise UsageError(
                "{name} of the original is not of the shape that the quantized model has. Give the folder that it was "
                "quantized from.",
                name=one.name,
            )
    moments = _second_moments(model, modules, windows)
    found = {}
    for one in modules:
        error = rows_of(theirs[one.name]).float() - rows_of(mine[one.name]).float()
        b, a = eora(error, moments.get(one.name), rank, torch.float32)
        found[one.name] = Factors(b.cpu(), a.cpu())
    return found


def _second_moments(model: Any, modules: Sequence[Module], windows: Sequence[Tensor]) -> dict[str, Tensor]:
    """The second moment `[in, in]` of the inputs of every module, float32; none where they do not fit."""
    if sum(4 * one.shape[1] ** 2 for one in modules) > _MOMENTS:
        return {}
    places, found = dict(model.named_modules()), dict[str, Tensor]()

    def hook(name: str) -> Any:
        def add(_module: Any, args: tuple[Tensor, ...]) -> None:
            x = args[0].flatten(0, -2).float()
            found[name] = found.get(name, 0) + x.t() @ x

        return add

    hooks = [places[one.name].register_forward_pre_hook(hook(one.name)) for one in modules]
    try:
        for window in windows[:_WINDOWS]:
            model(input_ids=window[None].to(model.device), use_cache=False)
    finally:
        for one in hooks:
            one.remove()
    return found
