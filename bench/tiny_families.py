"""A tiny random model of any decoder that transformers builds, from its config: what tests and tables of families take.

Sizes go by what a family's config has: every name that families give to a width, a number of heads or of experts is set
to the same small number. What a few need beside that is in `OWN`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tiny_models import VOCABULARY, tokenizer

_SIZES: tuple[tuple[int | float, tuple[str, ...]], ...] = (
    (VOCABULARY, ("vocab_size", "vocab_size_per_layer_input")),
    (64, ("hidden_size", "n_embd", "d_model", "dim")),
    (
        96,
        (
            "intermediate_size",
            "ffn_dim",
            "n_inner",
            "d_ff",
            "ffn_hidden_size",
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "moe_shared_expert_intermediate_size",
        ),
    ),
    (3, ("num_hidden_layers", "n_layer", "n_layers", "num_layers")),
    (4, ("num_attention_heads", "n_head", "n_heads", "num_heads")),
    (2, ("num_key_value_heads",)),
    (128, ("max_position_embeddings", "n_positions")),
    (0, ("bos_token_id",)),
    (1, ("eos_token_id",)),
    (VOCABULARY - 1, ("pad_token_id",)),
    (0.08, ("initializer_range",)),
    (4, ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")),
    (2, ("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token")),
    (1, ("n_group", "topk_group", "first_k_dense_replace")),
    (16, ("head_dim", "qk_nope_head_dim", "v_head_dim", "linear_key_head_dim", "linear_value_head_dim")),
    (16, ("mamba_d_head", "mamba_head_dim", "ssm_state_size", "attention_head_dim", "mamba_d_state")),
    (32, ("q_lora_rank", "kv_lora_rank")),
    (8, ("qk_rope_head_dim", "rotary_dim", "mamba_n_heads", "mamba_num_heads")),
    (24, ("qk_head_dim",)),
    (2, ("linear_num_key_heads",)),
    (4, ("linear_num_value_heads",)),
    (6, ("sliding_window",)),
)
# Set whatever stands there by default, which may be nothing.
_ALWAYS = (
    "vocab_size",
    "num_key_value_heads",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "pad_token_id",
    "bos_token_id",
)
_MIXED = ["linear_attention", "full_attention", "linear_attention"]
_CONVOLUTIONS = ["conv", "full_attention", "conv"]
_ALTERNATING = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
_SCANNED = {"mamba_n_heads": 8, "mamba_d_head": 16}
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], **_SCANNED},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {
        "head_dim": 16,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 96,
        "n_shared_experts": 1,
        "num_key_value_heads": 4,
    },
    "olmoe": {"num_key_value_heads": 4},
    "granitemoe": {"attention_multiplier": 0.25},
    "llama4_text": {"num_hidden_layers": 4, "num_experts_per_tok": 1},
    "minimax_m2": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    },
    "exaone4": {"sliding_window": None, "layer_types": ["full_attention"] * 3},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16},
    "qwen3_moe": {"norm_topk_prob": True},
    "falcon_h1": {"mamba_d_ssm": 128, **_SCANNED},
    "gemma3n_text": {
        "num_hidden_layers": 2,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"],
        "hidden_size_per_layer_input": 16,
        "laurel_rank": 8,
    },
    "longcat_flash": {"zero_expert_num": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4, "num_hidden_layers": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"], **_SCANNED},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {**_ALTERNATING, "num_hidden_layers": 4},
    "lfm2": {"layer_types": _CONVOLUTIONS},
    "lfm2_moe": {"layer_types": _CONVOLUTIONS, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 16},
    "ministral": {"head_dim": 16},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 1},
    "qwen3_5_moe_text": {"layer_types": _MIXED},
    "qwen3_5_text": {"layer_types": _MIXED},
    "qwen3_next": {"layer_types": _MIXED},
    "recurrent_gemma": {"lru_width": 64, "block_types": ["recurrent", "recurrent", "attention"]},
    "rwkv": {"attention_hidden_size": 64},
    "xglm": {"d_model": 64, "ffn_dim": 96, "attention_heads": 4, "num_layers": 3, "pad_token_id": 1},
    "zaya": {"num_experts_per_tok": 1},
}
# Decoders of transformers, by `model_type`: those with a row, and those whose parts are found or are not.
DECODERS = (
    "afmoe", "apertus", "arcee", "aria_text", "axk1", "axk2", "bamba", "biogpt", "bitnet", "bloom",
    "codegen", "cohere", "cohere2", "cohere2_moe", "cwm", "deepseek_v2", "deepseek_v3", "deepseek_v32",
    "diffllama", "doge", "dots1", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "falcon", "falcon_h1",
    "falcon_mamba", "flex_olmo", "gemma", "gemma2", "gemma3_text", "gemma3n_text", "glm", "glm4", "glm4_moe",
    "glm4_moe_lite", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe",
    "granitemoehybrid", "granitemoeshared", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3", "hyperclovax",
    "internlm3", "jais2", "jamba", "jetmoe", "laguna", "lfm2", "lfm2_moe", "llama", "llama4_text",
    "longcat_flash", "mamba", "mamba2", "mimo_v2_flash", "minicpm3", "minimax", "minimax_m2", "ministral",
    "ministral3", "mistral", "mixtral", "mpt", "nanochat", "nemotron", "nemotron_h", "olmo", "olmo2", "olmo3",
    "olmoe", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "qwen3_next", "recurrent_gemma", "rwkv", "seed_oss", "smollm3",
    "solar_open", "stablelm", "starcoder2", "vaultgemma", "xglm", "youtu", "zaya",
)  # fmt: skip


def config(family: str, **more: Any) -> Any:
    """The config of a model of `family` (a `model_type`) with three blocks, 64 wide."""
    usual = AutoConfig.for_model(family).get_text_config()
    settings: dict[str, Any] = {}
    for size, names in _SIZES:
        for name in names:
            if isinstance(getattr(usual, name, None), int | float) or (name in _ALWAYS and hasattr(usual, name)):
                settings[name] = size
    if family == "falcon":
        del settings["head_dim"]
    if hasattr(usual, "kv_lora_rank"):  # keys and values are made from one latent for every head
        settings |= {"head_dim": 8, "num_key_value_heads": 4}
    return AutoConfig.for_model(family, **{**settings, **OWN.get(family, {}), **more})


def make(folder: Path, family: str, dtype: torch.dtype = torch.float32, loud: float = 3.0, **more: Any) -> Path:
    """Save a random model whose blocks do something, and a tokenizer. loud: what its matrices are multiplied by."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(family, **more), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.std() > 0:
                parameter.mul_(loud)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
