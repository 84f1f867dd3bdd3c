"""Architectures: every family that has a row is, written as a file, the same model in llama.cpp."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gguf_models import CASES, EXPERTS, GEMMA, ROUTED, YARN, make
from whet.anatomy.inner import LIKE
from whet.checkpoint.gguf import read_gguf
from whet.errors import UsageError
from whet.formats.export import export
from whet.formats.gguf import ARCHITECTURES, plan_gguf
from whet.formats.gguf.architectures import by_head, grouped
from whet.targets import find_target

# Others of their families, or slow: `make test-all` proves them.
REST = (
    "olmo3, yarn",
    "exaone4, windows",
    "exaone4, llama 3",
    "stablelm, in parallel",
    "gpt_neox, in turn",
    "hunyuan, another base",
    *(name for name in ROUTED if name not in ("gpt_oss", "deepseek_v3, groups and yarn", "granitemoe", "qwen3_next")),
)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.long) if case in REST else case for case in CASES]
)
def test_every_family_is_the_same_model_in_llama_cpp(case, tmp_path):
    pytest.importorskip("llama_cpp")
    family, more = CASES[case]
    folder = make(tmp_path / "model", family, more)
    # inputs rounded to 16 bits may go to other experts
    kind = "F32" if case in ROUTED else "F16"
    made = export(folder, out=tmp_path / "m.gguf", kind=kind)
    check = made["check"]
    assert check["weights"] == "equal, bit for bit" and check["kl"] <= 1e-4 and check["tokens"] > 5
    assert made["bytes"]["planned"] == made["bytes"]["tensors"] == read_gguf(tmp_path / "m.gguf").nbytes
    assert set(made["types"]) <= {kind, "F32"} and made["types"][kind] > 5


def test_the_target_names_the_families_there_are_rows_for():
    assert set(find_target("llama.cpp").families) == set(ARCHITECTURES)
    # those that are in larger models alone are in tests/recipe/test_larger.py
    assert {family for family, _ in CASES.values()} | {*LIKE, "qwen3_vl_moe_text"} == set(ARCHITECTURES)


REFUSED = {
    "no row": ("apertus", {"pad_token_id": None}, r"of the family 'apertus', which whet does not write as \.gguf"),
    "activation": ("llama", {"hidden_act": "gelu"}, "its activation is gelu, llama.cpp computes silu"),
    "rope": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "its rotary frequencies are scaled by 'dynamic'",
    ),
    "yarn, not truncated": ("llama", {"rope_parameters": {**YARN, "truncate": False}}, "truncate is false"),
    "yarn of its own": ("qwen3", {"rope_parameters": {**YARN, "beta_slow": 2.0}}, "llama.cpp takes 32 and 1"),
    "heads": ("qwen2", {"head_dim": 32}, "its heads are not as wide together as its hidden states"),
    "window": ("gemma2", {**GEMMA, "layer_types": ["full_attention"] * 2}, "its blocks do not alternate"),
    "scale": ("gemma3_text", {**GEMMA, "query_pre_attn_scalar": 24}, "query_pre_attn_scalar is 24, llama.cpp takes 16"),
    "head": ("gemma2", {**GEMMA, "tie_word_embeddings": False}, "its head is a tensor of its own"),
    "biases": (
        "hunyuan_v1_dense",
        {"head_dim": 16, "pad_token_id": None, "attention_bias": True},
        "attention_bias is true, and llama.cpp does not read those biases",
    ),
    "positions": (
        "smollm3",
        {"pad_token_id": None, "no_rope_layers": [0, 1]},
        "its blocks without positions are not every fourth one",
    ),
    "windows of few blocks": ("exaone4", {"sliding_window": 16}, "windows of attention to models of 64 blocks"),
    "windows elsewhere": (
        "cohere2",
        {"pad_token_id": None, "sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]},
        "its blocks do not alternate as llama.cpp expects",
    ),
    "norms of heads": ("stablelm", {"qk_layernorm": True}, "its queries and keys go through norms of their own"),
    "no biases": ("starcoder2", {"use_bias": False}, "it has no biases"),
    "ALiBi": ("falcon", {"alibi": True}, "it has ALiBi, biases or blocks that are not parallel"),
    "keys of every head": ("falcon", {"multi_query": False}, "every head has keys and values of its own"),
    "shared head": ("olmo2", {"pad_token_id": None, "tie_word_embeddings": True}, "its head is the embedding"),
    "weights of experts": (
        "qwen2_moe",
        {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 64, "norm_topk_prob": True},
        "norm_topk_prob is true",
    ),
    "keys of fewer heads": ("olmoe", {"num_key_value_heads": 2}, "several of its heads share a key"),
    "two experts a token": ("llama4_text", {"num_experts_per_tok": 2}, "llama.cpp takes one expert a token here"),
    "the best of a group": (
        "deepseek_v2",
        {"topk_method": "group_limited_greedy", "n_group": 2},
        "it chooses groups of experts by their best one",
    ),
    "factors of yarn": (
        "deepseek_v3",
        {"rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}},
        "the two factors of its YaRN",
    ),
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


def test_a_window_llama_cpp_does_not_have_is_told_and_the_context_kept(tmp_path):
    """Within the window both compute the same."""
    pytest.importorskip("llama_cpp")
    folder = make(tmp_path / "model", "mistral", {"sliding_window": 24})
    made = export(folder, out=tmp_path / "m.gguf")
    assert read_gguf(tmp_path / "m.gguf").setting("context_length") == 128
    assert "in texts of more than 24 tokens it looks back further" in made["notes"][0]


def test_what_llama_cpp_computes_nearly_is_told(tmp_path):
    layout = plan_gguf(make(tmp_path / "model", "falcon", {"ffn_hidden_size": 96}))
    assert "computes gelu by its tanh approximation" in layout.notes[0]
    assert plan_gguf(make(tmp_path / "other", "falcon", {"ffn_hidden_size": 96, "activation": "gelu_new"})).notes == []


def test_rows_of_q_k_and_v_that_alternate_are_put_in_order(tmp_path):
    """Group by group in Falcon, head by head in GPT-NeoX: what a number in each row says where it came from."""
    neox = SimpleNamespace(num_attention_heads=2)
    assert by_head(neox, "attn_qkv", 12).tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]
    falcon = SimpleNamespace(num_attention_heads=4, num_kv_heads=2, new_decoder_architecture=True)
    assert grouped(falcon, "attn_qkv", 8).tolist() == [0, 1, 4, 5, 2, 6, 3, 7]
    assert by_head(neox, "attn_output", 12) is None and grouped(falcon, "ffn_up", 8) is None
