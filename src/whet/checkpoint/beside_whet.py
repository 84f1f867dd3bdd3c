"""What a model has beside its weights: buffers that no file holds, and inputs that linears round, as whet.json tells.

Copied into folders beside `modeling_whet.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel


def compute_buffers(model: PreTrainedModel, device: str) -> None:
    """What no file holds, such as rotary frequencies, computed from the config, in a `model` on the meta device."""
    made = set()
    makers: dict[torch.nn.Module, PreTrainedModel] = {}
    for maker in model.modules():
        if isinstance(maker, PreTrainedModel):  # of a model inside another one the inner one knows how
            makers |= dict.fromkeys(maker.modules(), maker)
        left = {name: buffer for name, buffer in maker._buffers.items() if buffer is not None and buffer.is_meta}
        for name, buffer in left.items():
            maker._buffers[name] = torch.empty_like(buffer, device=device)
        if left:
            made.add(maker)
    for module, maker in makers.items():
        if module in made or (made and module is maker):  # some are made by the model itself
            maker._init_weights(module)


def rounded_inputs(x: Tensor, how: dict, scale: Tensor | None = None) -> Tensor:
    """Inputs `x [..., in]` of a linear rounded as `how` tells (an entry's `inputs`), in compressed-tensors' arithmetic.

    scale: what is stored, `[1]`: the scale of all tokens, or what NVFP4's scales are multiplied by.
    """
    values, kind, shape = how["values"], x.dtype, x.shape
    top = {"int": (2 ** how["bits"] - 1) / 2, "e4m3": 448.0, "e2m1": 6.0}[values]
    x = x.unflatten(-1, (-1, how["group"])) if how["per"] == "group" else x
    peak = x.abs().amax(-1, keepdim=True)
    if how["per"] == "tensor":
        scale = scale.to(kind)  # type: ignore[union-attr]
    elif values != "e2m1":
        scale = peak / top
        scale = torch.where(scale == 0, torch.full_like(scale, torch.finfo(kind).eps), scale)
    elif scale is not None:
        local = (scale * (peak / top)).clamp(-448, 448).to(torch.float8_e4m3fn).to(scale.dtype)
        scale = torch.where(local == 0, torch.full_like(local, 0.125), local) / scale
    else:  # a power of two, the next one from a mantissa of 1.75 on
        mantissa, exponent = torch.frexp(peak.float())
        scale = torch.exp2((exponent - 3 + (mantissa >= 0.875)).clamp(-126, 126).float()).to(kind)
    scaled = x / scale
    if values == "int":
        found = scaled.clamp(-top - 0.5, top - 0.5).round()
    elif values == "e4m3":
        found = scaled.clamp(-top, top).to(torch.float8_e4m3fn)
    else:
        size = scaled.float().abs().clamp(max=top)
        step = torch.exp2((torch.frexp(size).exponent - 1).clamp(0, 2) - 1.0)
        found = ((size / step).round() * step).copysign(scaled)
    return (found.to(scale.dtype) * scale).to(kind).reshape(shape)


def round_inputs(model: torch.nn.Module, table: dict[str, dict], scales: dict[str, Tensor]) -> None:
    """Have linears of `model` round their inputs as their entries in `table` tell. scales: by stored name."""
    hooked = set()
    for address, entry in table.items():
        place = (entry.get("into") or {}).get("parameter") or f"{address}.weight"
        name = place.rpartition(".")[0]
        if "inputs" not in entry or name in hooked:  # rows of one tensor read one input
            continue
        hooked.add(name)
        scale = scales.get(f"{address}.input_scale", scales.get(f"{address}.input_global_scale"))

        def hook(_: torch.nn.Module, args: tuple, how: dict = entry["inputs"], scale: Tensor | None = scale) -> tuple:
            return (rounded_inputs(args[0], how, scale), *args[1:])

        model.get_submodule(name).register_forward_pre_hook(hook)
