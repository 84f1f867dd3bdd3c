"""Architectures: every family that has a row is, written as a file, the same model in llama.cpp."""

from __future__ import annotations

import pytest

from gguf_models import CASES, EXPERTS, GEMMA, YARN, make
from whet.checkpoint.gguf import read_gguf
from whet.errors import UsageError
from whet.formats.export import export
from whet.formats.gguf import ARCHITECTURES, plan_gguf
from whet.targets import find_target


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
    "yarn, not truncated": ("llama", {"rope_parameters": {**YARN, "truncate": False}}, "truncate is false"),
    "yarn of its own": ("qwen3", {"rope_parameters": {**YARN, "beta_slow": 2.0}}, "llama.cpp takes 32 and 1"),
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


def test_a_window_llama_cpp_does_not_have_is_told_and_the_context_kept(tmp_path):
    """Within the window both compute the same."""
    pytest.importorskip("llama_cpp")
    folder = make(tmp_path / "model", "mistral", {"sliding_window": 24})
    made = export(folder, out=tmp_path / "m.gguf")
    assert read_gguf(tmp_path / "m.gguf").setting("context_length") == 128
    assert "in texts of more than 24 tokens it looks back further" in made["notes"][0]
