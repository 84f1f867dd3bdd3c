"""Blocks that differ in shape, as llama.cpp reads them: numbers a block, zeros where a block has no feed-forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whet.formats.gguf.settings import Settings, kv_heads

NOTHING = 32  # width of the feed-forward of zeros that stands where a block has none


def by_block(config: Any, layers: Mapping[int, Mapping[str, Any]]) -> Settings:
    """Settings with a number for every block, where blocks differ: `layers` has the entries that are a block's own.

    llama.cpp leaves a block without a feed-forward out altogether, with its attention: such a block has one of zeros.
    """
    found: dict[str, list[int]] = {"attention.head_count": [], "attention.head_count_kv": [], "feed_forward_length": []}
    for index in range(config.num_hidden_layers):
        own = layers.get(index, {})
        skipped = own.get("skip", ())
        queries = own.get("num_attention_heads", config.num_attention_heads)
        numbers = (0, 0) if "attention" in skipped else (queries, own.get("num_key_value_heads", kv_heads(config)))
        width = NOTHING if "mlp" in skipped else own.get("intermediate_size", config.intermediate_size)
        for key, number in zip(found, (*numbers, width), strict=True):
            found[key].append(number)
    return {key: np.array(numbers, dtype=np.int32) for key, numbers in found.items()}


def of_zeros(config: Any, layers: Mapping[int, Mapping[str, Any]]) -> dict[str, Tensor]:
    """The tensors of feed-forwards that add nothing, for blocks that have none."""
    width = config.hidden_size
    found: dict[str, Tensor] = {}
    for index in (index for index, own in layers.items() if "mlp" in own.get("skip", ())):
        found[f"blk.{index}.ffn_norm.weight"] = torch.ones(width)
        found |= {f"blk.{index}.ffn_{part}.weight": torch.zeros(NOTHING, width) for part in ("gate", "up")}
        found[f"blk.{index}.ffn_down.weight"] = torch.zeros(width, NOTHING)
    return found
