"""A tiny random model of every family that has a row in the exporter, with what is special about some of them."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import models
import tiny_families

GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}
EXPERTS = {"num_experts_per_tok": 2, "num_hidden_layers": 2}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LONG = {"short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [2.0 + 0.3 * i for i in range(8)]}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_LATENT_YARN = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}
# Of families with experts and the like, whose sizes are those of `tiny_families`.
ROUTED = {
    "olmoe": ("olmoe", {}),
    "gpt_oss": ("gpt_oss", {"rope_parameters": {**YARN, "truncate": True}}),
    "deepseek_v2": ("deepseek_v2", {"num_hidden_layers": 2}),
    "deepseek_v3": ("deepseek_v3", {"num_hidden_layers": 2}),
    "deepseek_v3, groups and yarn": (
        "deepseek_v3",
        {"rope_parameters": _LATENT_YARN, "n_group": 2, "topk_group": 1, "n_routed_experts": 8},
    ),
    "glm4_moe": ("glm4_moe", {"num_hidden_layers": 2}),
    "dots1": ("dots1", {}),
    "granitemoe": ("granitemoe", {"num_hidden_layers": 2}),
    "ernie4_5_moe": ("ernie4_5_moe", {"num_hidden_layers": 2}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {"num_hidden_layers": 2}),
    "minimax_m2": ("minimax_m2", {}),
    "lfm2": ("lfm2", {}),
    "lfm2_moe": ("lfm2_moe", {}),
    "qwen3_next": ("qwen3_next", {}),
    "llama4": ("llama4_text", {}),
    "gemma": ("gemma", {"num_hidden_layers": 2}),
    "phi": ("phi", {"num_hidden_layers": 2}),
    "olmo": ("olmo", {"num_hidden_layers": 2}),
    "olmo, clipped": ("olmo", {"num_hidden_layers": 2, "clip_qkv": 0.5}),
    "cohere": ("cohere", {"num_hidden_layers": 2}),
    "arcee": ("arcee", {"num_hidden_layers": 2}),
    "nemotron": ("nemotron", {"num_hidden_layers": 2}),
    "glm": ("glm", {"num_hidden_layers": 2}),
}
# A family and what is special about one of its models; widths as in `models`.
CASES = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, biases and wide heads": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}),
    "llama 3": ("llama", {"rope_parameters": LLAMA_3}),
    "llama, linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "mistral": ("mistral", {"sliding_window": 24}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3, yarn": ("qwen3", {"rope_parameters": YARN}),
    "llama, yarn and a strength": ("llama", {"rope_parameters": {**YARN, "attention_factor": 0.8}}),
    "gemma2": ("gemma2", {**GEMMA, "num_hidden_layers": 3, "tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", {**GEMMA, "num_hidden_layers": 7, "tie_word_embeddings": True}),
    "phi3": ("phi3", {"pad_token_id": None}),
    "phi3, long": (
        "phi3",
        {
            "pad_token_id": None,
            "max_position_embeddings": 1024,
            "original_max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, **LONG},
        },
    ),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "exaone4": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 2}),
    "exaone4, windows": ("exaone4", {"num_hidden_layers": 64, "sliding_window": 16}),
    "exaone4, llama 3": (
        "exaone4",
        {"sliding_window": None, "layer_types": ["full_attention"] * 2, "rope_parameters": LLAMA_3},
    ),
    "smollm3": ("smollm3", {"pad_token_id": None, "num_hidden_layers": 5}),
    "olmo2": ("olmo2", {"pad_token_id": None}),
    "olmo3": ("olmo3", {"pad_token_id": None, "num_hidden_layers": 5, "sliding_window": 16}),
    "olmo3, yarn": (
        "olmo3",
        {
            "pad_token_id": None,
            "num_hidden_layers": 4,
            "sliding_window": 16,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": YARN,
            },
        },
    ),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.0,
            "logits_scaling": 4.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.3,
        },
    ),
    "stablelm": ("stablelm", {"use_qkv_bias": True}),
    "stablelm, in parallel": ("stablelm", {"use_parallel_residual": True}),
    "starcoder2": ("starcoder2", {"tie_word_embeddings": True}),
    "glm4": ("glm4", {"head_dim": 16, "partial_rotary_factor": 0.5, "pad_token_id": None, "attention_bias": True}),
    "cohere2": ("cohere2", {"num_hidden_layers": 5, "sliding_window": 16, "pad_token_id": None}),
    "seed_oss": ("seed_oss", {"head_dim": 32, "pad_token_id": None}),
    "ernie4_5": ("ernie4_5", {"head_dim": 32, "pad_token_id": None, "tie_word_embeddings": True}),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 32, "pad_token_id": None}),
    "hunyuan, another base": (
        "hunyuan_v1_dense",
        {
            "head_dim": 16,
            "pad_token_id": None,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 50.0, "factor": 1.0},
        },
    ),
    "falcon": ("falcon", {"ffn_hidden_size": 96, "alibi": False}),
    "falcon, groups": (
        "falcon",
        {"ffn_hidden_size": 96, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "gpt_neox": (
        "gpt_neox",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ),
    "gpt_neox, in turn": ("gpt_neox", {"use_parallel_residual": False, "hidden_act": "gelu_new"}),
    "qwen2_moe": (
        "qwen2_moe",
        {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 96},
    ),
    "mixtral": ("mixtral", {**EXPERTS, "num_local_experts": 4}),
    "qwen3_moe": ("qwen3_moe", {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 64, "norm_topk_prob": True}),
    **ROUTED,
}


def make(folder, family, more, dtype=torch.float32):
    """A tiny random model, norms and biases random too, with a tokenizer."""
    torch.manual_seed(0)
    if family in {name for name, _ in ROUTED.values()}:
        return _saved(tiny_families.config(family, **more), folder, dtype)
    settings = models.config("llama").to_dict() if family != "gpt2" else {"vocab_size": models.VOCABULARY}
    keep = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "bos_token_id", "eos_token_id", "initializer_range"),
    )
    config = AutoConfig.for_model(family, **{**{k: settings[k] for k in keep if k in settings}, **more})
    return _saved(config, folder, dtype)


def _saved(config, folder, dtype):
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):
                parameter += 0.2 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    return folder
