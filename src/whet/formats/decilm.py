"""Models whose blocks differ in shape as vLLM's DeciLM reads them (`DeciLMForCausalLM`, vllm/model_executor/models/
nemotron_nas.py): a Llama with `block_configs`. Checked against that file; not run here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whet.anatomy import architecture_of, config_of, per_layer

ARCHITECTURE = "DeciLMForCausalLM"
_LIKE = ("LlamaForCausalLM", "MistralForCausalLM")  # what it computes, where there is no window
_QUERIES, _KEYS, _WIDTH = "num_attention_heads", "num_key_value_heads", "intermediate_size"


def with_block_configs(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config`, and what vLLM reads where that can hold the model: every block has as many heads, and all look at the
    whole text."""
    layers = per_layer(config)
    heads = {own.get(_QUERIES) for own in layers.values() if "attention" not in own.get("skip", ())}
    if (
        not layers
        or architecture_of(config) not in _LIKE
        or config.get("sliding_window")
        or heads != {None}
        or any("attention" in layers[index].get("skip", ()) for index in (0,) if index in layers)
    ):
        return dict(config)
    blocks = [_block(config_of(config, index)) for index in range(config["num_hidden_layers"])]
    return {**config, "architectures": [ARCHITECTURE], "block_configs": blocks}


def _block(config: Mapping[str, Any]) -> dict[str, Any]:
    """One of `block_configs`. vLLM rounds `ffn_mult` to multiples of 256, so the width is said as it is."""
    skipped = config.get("skip", ())
    group = config[_QUERIES] // (config.get(_KEYS) or config[_QUERIES])
    attention = {"no_op": "attention" in skipped, "replace_with_linear": False}
    ffn = {"no_op": "mlp" in skipped, "replace_with_linear": False}
    return {
        "attention": {**attention, "n_heads_in_group": None if attention["no_op"] else group},
        "ffn": {**ffn, "intermediate_size": None if ffn["no_op"] else config[_WIDTH]},
    }
