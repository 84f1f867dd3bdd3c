"""Originals that are stored in floats of 8 or 4 bits with scales beside them, read as the weights that these stand for.

DeepSeek's blocks of FP8 (`X.weight` and `X.weight_scale_inv`, a scale for 128 x 128), FP8 with a scale a tensor, a row
or a block as compressed-tensors, FBGEMM and ModelOpt write it (`X.weight_scale`), and the MXFP4 of GPT-OSS's experts
(`X_blocks` and `X_scales`). A value is `float8 * scale` or `E2M1 * 2^(scale - 127)`, computed in float32 and given in
the type of the config. Scales of inputs and of caches are left out: weights alone are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint.files import DTYPES, Computed, TensorInfo
from whet.checkpoint.modeling_whet import E2M1
from whet.errors import UsageError

_KEY = "quantization_config"
_FLOATS = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALES = ("_scale_inv", "_scale")
# What such folders hold of inputs and caches, and the zeros of symmetric grids.
_BESIDE = (
    *("input_scale", "activation_scale", "input_scale_ub", "output_scale", "k_scale", "v_scale"),
    *("kv_scale", "weight_zero_point", "input_zero_point"),
)
_BLOCKS, _EXPONENTS = "_blocks", "_scales"


def as_weights(
    config: dict[str, Any], tensors: dict[str, TensorInfo]
) -> tuple[str, dict[str, Any], dict[str, TensorInfo]] | None:
    """What the weights of a quantized original are stored in (`FP8`, `MXFP4`), its config without that and its tensors
    as the weights; None for one that is stored in another way."""
    settings = config.get(_KEY) or (config.get("text_config") or {}).get(_KEY)
    if not isinstance(settings, Mapping):
        return None
    dtype = type_in(config)
    found: dict[str, TensorInfo] = {}
    kinds: set[str] = set()
    for name, info in tensors.items():
        if name.rpartition(".")[2] in _BESIDE or _is_scale(name, tensors):
            continue
        if info.dtype in _FLOATS:
            scale = next((tensors[name + end] for end in _SCALES if name + end in tensors), None)
            if scale is None:
                return None
            found[name], kind = _small_floats(info, scale, dtype, _block_in(settings)), "FP8"
        elif name.endswith(_BLOCKS) and name.removesuffix(_BLOCKS) + _EXPONENTS in tensors and len(info.shape) == 4:
            stack = name.removesuffix(_BLOCKS)
            found[stack], kind = _mxfp4(info, tensors[stack + _EXPONENTS], dtype), "MXFP4"
        elif info.dtype.is_floating_point:
            found[name] = info
            continue
        else:
            return None
        kinds.add(kind)
    if len(kinds) != 1:
        return None
    return kinds.pop(), _without(config), found


def refuse_scaled(folder: Any, stored_in: str | None, asked: bool) -> None:
    """Raises UsageError for an original whose weights are `stored_in` few bits, unless its reader was `asked` to decode
    them."""
    if stored_in is not None and not asked:
        raise UsageError(
            "{folder} is stored in {kind}, so its weights are rounded already. The original in 16 bits gives a better "
            "lighter model; it is usually named in the model card as base_model. Where there is none, --dequantize "
            "(in Python and recipes dequantize: true) takes what is stored, decoded, for the original.",
            folder=folder,
            kind=stored_in,
        )


def _is_scale(name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    if name.endswith(_EXPONENTS) and name.removesuffix(_EXPONENTS) + _BLOCKS in tensors:
        return True
    of = next((name.removesuffix(end) for end in _SCALES if name.endswith(end)), None)
    return of is not None and of in tensors and tensors[of].dtype in _FLOATS


def type_in(config: Mapping[str, Any]) -> torch.dtype:
    """The type that the config names for weights, bfloat16 where it is none of those that compute."""
    text = config.get("text_config") or {}
    said = next((one[key] for one in (config, text) for key in ("dtype", "torch_dtype") if one.get(key)), None)
    known = {str(dtype).removeprefix("torch."): dtype for dtype in (DTYPES["F32"], DTYPES["F16"], DTYPES["BF16"])}
    return known.get(str(said), torch.bfloat16)


def _block_in(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns that share a scale, where the settings say so."""
    said = settings.get("weight_block_size")
    for group in (settings.get("config_groups") or {}).values():
        said = said or (group.get("weights") or {}).get("block_structure")
    return (int(said[0]), int(said[1])) if isinstance(said, list) and len(said) == 2 else None


def _without(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key != _KEY}
    if isinstance(text := kept.get("text_config"), dict):
        kept["text_config"] = {key: value for key, value in text.items() if key != _KEY}
    return kept


def _computed(
    first: TensorInfo,
    second: TensorInfo,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    value: Callable[[Tensor, Tensor], Tensor],
) -> Computed:
    return Computed(first.file, dtype, shape, first.start, first.end, (first, second), value)


def _small_floats(info: TensorInfo, scale: TensorInfo, dtype: torch.dtype, block: tuple[int, int] | None) -> Computed:
    return _computed(info, scale, dtype, info.shape, partial(_times, dtype, block))


def _times(dtype: torch.dtype, block: tuple[int, int] | None, codes: Tensor, scale: Tensor) -> Tensor:
    """`codes` [.., rows, columns] times the `scale` of each, which has one for all, for each row, or for each block."""
    # exponents may be stored as bytes
    scale = torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()
    if scale.numel() == 1:
        return (codes.float() * scale.reshape(())).to(dtype)
    while scale.dim() < codes.dim():
        scale = scale.unsqueeze(-1)
    for axis, step in ((-2, block and block[0]), (-1, block and block[1])):
        size, have = codes.shape[axis], scale.shape[axis]
        if have in (1, size):
            continue
        step = step if step and -(-size // step) == have else -(-size // have)
        scale = scale.repeat_interleave(step, dim=axis).narrow(axis, 0, size)
    return (codes.float() * scale).to(dtype)


def _mxfp4(info: TensorInfo, scale: TensorInfo, dtype: torch.dtype) -> Computed:
    experts, rows, groups, width = info.shape
    return _computed(info, scale, dtype, (experts, 2 * groups * width, rows), partial(_exponents, dtype))


def _exponents(dtype: torch.dtype, blocks: Tensor, scales: Tensor) -> Tensor:
    """Experts `[n, in, out]` of `blocks` [n, out, groups, 16], two codes a byte, and exponents [n, out, groups]."""
    values = torch.tensor(E2M1)
    found = torch.empty(len(blocks), 2 * blocks.shape[2] * blocks.shape[3], blocks.shape[1], dtype=dtype)
    for expert, (codes, exponent) in enumerate(zip(blocks, scales, strict=True)):
        pairs = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(2).int()
        whole = torch.ldexp(values[pairs], (exponent.int() - 127).unsqueeze(-1)).flatten(1)
        found[expert] = whole.t().to(dtype)
    return found
