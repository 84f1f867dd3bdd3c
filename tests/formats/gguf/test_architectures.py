"""Architectures: every family that has a row is, written as a file, the same model in llama.cpp."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import models
from whet.checkpoint.gguf import read_gguf
from whet.errors import UsageError
from whet.formats.gguf import ARCHITECTURES, plan_gguf
from whet.recipe.export import export
from whet.targets import find_target

GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}
EXPERTS = {"num_experts_per_tok": 2, "num_hidden_layers": 2}
LONG = {"short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [2.0 + 0.3 * i for i in range(8)]}
# A family and what is special about one of its models; widths as in `models`.
CASES = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, biases and wide heads": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}),
    "llama 3": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama, linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "mistral": ("mistral", {"sliding_window": 24}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
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
    "mixtral": ("mixtral", {**EXPERTS, "num_local_experts": 4}),
    "qwen3_moe": ("qwen3_moe", {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 64, "norm_topk_prob": True}),
}


def make(folder, family, more, dtype=torch.float32):
    """A tiny random model, norms and biases random too, with a tokenizer."""
    torch.manual_seed(0)
    settings = models.config("llama").to_dict() if family != "gpt2" else {"vocab_size": models.VOCABULARY}
    keep = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "bos_token_id", "eos_token_id", "initializer_range"),
    )
    config = AutoConfig.for_model(family, **{**{k: settings[k] for k in keep if k in settings}, **more})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):
                parameter += 0.2 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_every_family_is_the_same_model_in_llama_cpp(case, tmp_path):
    pytest.importorskip("llama_cpp")
    family, more = CASES[case]
    folder = make(tmp_path / "model", family, more)
    made = export(folder, out=tmp_path / "m.gguf", kind="f16")
    check = made["check"]
    assert check["weights"] == "equal, bit for bit" and check["kl"] <= 1e-4 and check["tokens"] > 5
    assert made["bytes"]["planned"] == made["bytes"]["tensors"] == read_gguf(tmp_path / "m.gguf").nbytes
    assert set(made["types"]) <= {"F16", "F32"} and made["types"]["F16"] > 5


def test_the_target_names_the_families_there_are_rows_for():
    assert set(find_target("llama.cpp").families) == set(ARCHITECTURES)
    assert {family for family, _ in CASES.values()} == set(ARCHITECTURES)


REFUSED = {
    "no row": ("olmo2", {"pad_token_id": None}, r"of the family 'olmo2', which whet does not write as \.gguf"),
    "activation": ("llama", {"hidden_act": "gelu"}, "its activation is gelu, llama.cpp computes silu"),
    "rope": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "its rotary frequencies are scaled by 'dynamic'",
    ),
    "heads": ("qwen2", {"head_dim": 32}, "its heads are not as wide together as its hidden states"),
    "window": ("gemma2", {**GEMMA, "layer_types": ["full_attention"] * 2}, "its blocks do not alternate"),
    "scale": ("gemma3_text", {**GEMMA, "query_pre_attn_scalar": 24}, "query_pre_attn_scalar is 24, llama.cpp takes 16"),
    "head": ("gemma2", {**GEMMA, "tie_word_embeddings": False}, "its head is a tensor of its own"),
    "experts": (
        "qwen3_moe",
        {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 64, "norm_topk_prob": False},
        "norm_topk_prob is false",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused_by_name(case, tmp_path):
    family, more, said = REFUSED[case]
    folder = make(tmp_path / "model", family, more)
    with pytest.raises(UsageError, match=said) as raised:
        plan_gguf(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_a_window_llama_cpp_does_not_have_ends_the_context(tmp_path):
    layout = plan_gguf(make(tmp_path / "model", "mistral", {"sliding_window": 24}))
    assert layout.entries["llama.context_length"] == 24
    assert "the context is 24 tokens instead of 128" in layout.notes[0]
