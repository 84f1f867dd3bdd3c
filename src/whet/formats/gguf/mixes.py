"""The mixes of `llama-quantize`: which of ggml's types each tensor of a model has under a name such as Q4_K_M.

A mix is one type throughout, more bits where llama.cpp's authors found that they pay (values, the FFN's last linear in
the first, the last and every third block, the head), and 8 bits for what is small beside eight experts. From
`llama_tensor_get_type_impl` in llama.cpp's `src/llama-quant.cpp`; tests compare every tensor with what llama.cpp does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whet.anatomy import Anatomy, Linear
from whet.budget import tables
from whet.formats.gguf.architectures import Architecture, expert_of, find_architecture, tensor_name
from whet.formats.gguf.settings import kv_heads
from whet.grids import MIXES

_VALUES = ("attn_v", "attn_qkv")  # q, k and v in one tensor count as values
_SHARED = 4  # heads on one value from which values are worth more
_FEW_EXPERTS = 8  # as Mixtral has: what is not an expert is small beside them
_LARGE = ("llama", 80)  # 70B, whose values are an eighth of its queries


@dataclass(frozen=True)
class _Model:
    """What the choice depends on: `blocks`, heads on one value `shared`, `experts`, and whether it is a 70B."""

    blocks: int
    shared: int
    experts: int
    large: bool


def mixed_types(mix: str, parts: Anatomy, config: Any) -> dict[str, str]:
    """ggml's type by address for every linear of the blocks, embedding and head, under the mix `mix`.

    config: the model's, as transformers reads it. Types whose blocks do not divide a row are left to `stand_in`.
    """
    row = find_architecture(config, str(parts.model_type))
    find = tensor_name(row, len(parts.blocks))
    heads = int(config.num_attention_heads)
    experts = int(getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 0)
    large = (parts.model_type, len(parts.blocks)) == _LARGE and kv_heads(config) != heads
    model = _Model(len(parts.blocks), heads // kv_heads(config), experts, large)
    found = {}
    for index, linears in enumerate(parts.blocks):
        for linear in linears:
            kind = _kind(linear, parts, row, find)
            found[linear.address] = _of_block(mix, kind, index, model)
    for linear in tables(parts):
        found[linear.address] = _of_table(mix, linear, parts.tied)
    return found


def _kind(linear: Linear, parts: Anatomy, row: Architecture, find: Any) -> str:
    """What llama.cpp calls the tensor that holds it, without block number: `attn_v`, `ffn_down`."""
    expert = expert_of(f"{linear.address}.weight", row)
    if expert is not None:
        return f"ffn_{expert.parts[0][0]}"
    own = parts.family.own_name(parts.name(linear.parameter)) if parts.family.entries else linear.parameter
    name: str | None = find(own) or find(f"{linear.address}.weight")
    return "" if name is None else name.split(".")[2]


def _of_table(mix: str, linear: Linear, tied: bool) -> str:
    if linear.role == "embedding" and not tied:
        return MIXES[mix]
    return "Q8_0" if linear.shape[1] % 256 else "Q6_K"


def _of_block(mix: str, kind: str, index: int, model: _Model) -> str:
    usual = MIXES[mix]
    if kind in _VALUES:
        if model.experts == _FEW_EXPERTS:
            return "Q8_0"
        found = _of_values(mix, index, model)
        return "Q5_K" if model.large and found in ("Q3_K", "Q4_K") else found
    if kind == "attn_k" and model.experts == _FEW_EXPERTS:
        return "Q8_0"
    if kind == "ffn_down":
        return _of_down(mix, index, model.blocks)
    if kind == "attn_output" and model.experts == _FEW_EXPERTS:
        return "Q5_K" if usual in ("Q3_K", "Q4_K") and mix != "Q3_K_L" else usual
    if kind == "attn_output":
        return {"Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(mix, usual)
    return usual


def _of_values(mix: str, index: int, model: _Model) -> str:
    usual = MIXES[mix]
    more = _worth_more(index, model.blocks)
    return {
        "Q2_K_S": "Q4_K" if model.shared >= _SHARED else usual,
        "Q3_K_M": "Q5_K" if index < 2 else "Q4_K",
        "Q3_K_L": "Q5_K",
        "Q4_K_S": "Q5_K" if index < 4 else usual,
        "Q4_K_M": "Q6_K" if more else usual,
        "Q5_K_M": "Q6_K" if more else usual,
    }.get(mix, usual)


def _of_down(mix: str, index: int, blocks: int) -> str:
    usual = MIXES[mix]
    more, early = _worth_more(index, blocks), index < blocks // 8
    return {
        "Q2_K_S": "Q4_K" if early else usual,
        "Q3_K_M": "Q5_K" if index < blocks // 16 else "Q4_K",
        "Q3_K_L": "Q5_K",
        "Q4_K_S": "Q5_K" if early else usual,
        "Q4_K_M": "Q6_K" if more else usual,
        "Q5_K_M": "Q6_K" if more else usual,
    }.get(mix, usual)


def _worth_more(index: int, blocks: int) -> bool:
    """The first and the last eighth of the blocks, and every third between."""
    return index < blocks // 8 or index >= 7 * blocks // 8 or (index - blocks // 8) % 3 == 2
