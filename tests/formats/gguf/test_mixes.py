"""Mixes: every tensor has the type that llama.cpp's own quantizer gives it."""

from __future__ import annotations

import ctypes
import math

import gguf
import pytest
import torch

import models
import whet
from gguf_models import make
from whet.anatomy import anatomy
from whet.checkpoint import Checkpoint, model_config
from whet.checkpoint.gguf import read_gguf
from whet.errors import UsageError
from whet.formats.gguf import plan_gguf, write_gguf
from whet.formats.gguf.architectures import expert_of, find_architecture, tensor_name
from whet.formats.gguf.mixes import mixed_types
from whet.grids import BLOCKS, MIXES, parse_scheme
from whet.targets import find_target, stand_in

TEXT = models.documents(20)
# Blocks enough for every rule; wide enough for K-quants, but for one; one, two and four heads on one value.
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 9}
EXPERTS = {**WIDE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
CASES = {
    "llama": ("llama", {**WIDE, "num_hidden_layers": 17, "num_key_value_heads": 1}),
    "llama, tied": ("llama", {**WIDE, "tie_word_embeddings": True}),
    "llama, narrow": ("llama", {"hidden_size": 64, "intermediate_size": 96}),
    "llama, 70B": ("llama", {**WIDE, "num_hidden_layers": 80}),
    "phi3": ("phi3", {**WIDE, "num_key_value_heads": 4, "pad_token_id": None}),
    "gpt2": ("gpt2", {"n_embd": 256, "n_layer": 9, "n_head": 4, "n_positions": 128}),
    "gpt_neox": ("gpt_neox", WIDE),
    "cohere2": ("cohere2", {**WIDE, "num_hidden_layers": 8, "sliding_window": 16, "pad_token_id": None}),
    "glm4": ("glm4", {**WIDE, "head_dim": 64, "pad_token_id": None}),
    "mixtral": ("mixtral", {**WIDE, "num_local_experts": 8, "num_experts_per_tok": 2}),
    "qwen3_moe": ("qwen3_moe", {**EXPERTS, "norm_topk_prob": True}),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in ("llama", "mixtral") else pytest.mark.long) for case in CASES]
)
def test_every_tensor_has_the_type_that_llama_quantize_gives_it(tmp_path, case):
    llama_cpp = pytest.importorskip("llama_cpp")
    folder = make(tmp_path / "model", *CASES[case], dtype=torch.bfloat16)
    write_gguf(plan_gguf(folder), tmp_path / "whole.gguf")
    checkpoint = Checkpoint(folder)
    parts, config = anatomy(checkpoint.config, checkpoint.shapes), model_config(checkpoint)
    alike = importance(llama_cpp, read_gguf(tmp_path / "whole.gguf"))
    for mix in MIXES:
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype, settings.nthread = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{mix}"), 1
        settings.imatrix = ctypes.cast(alike, ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
        names = [str(tmp_path / name).encode() for name in ("whole.gguf", f"{mix}.gguf")]
        assert llama_cpp.llama_model_quantize(*names, settings) == 0
        theirs = {n: t.type for n, t in read_gguf(tmp_path / f"{mix}.gguf").tensors.items() if t.type in BLOCKS}
        ours = of_tensors(mixed_types(mix, parts, config), parts, config)
        assert ours == theirs, mix


def importance(llama_cpp, file):
    """Every input as important as any other: without any, llama.cpp refuses mixes of 2 bits."""
    matrices = {name: tensor for name, tensor in file.tensors.items() if len(tensor.shape) > 1}
    entries = (llama_cpp.llama_model_imatrix_data * (len(matrices) + 1))()
    for entry, (name, tensor) in zip(entries, matrices.items(), strict=False):
        count = math.prod((*tensor.shape[:-2], tensor.shape[-1]))
        values = (ctypes.c_float * count)(*[1.0] * count)
        entry.name, entry.size, entry.data = name.encode(), len(values), values
    return entries


def of_tensors(types, parts, config):
    """By the names that tensors have in a file, as they fit their rows."""
    row = find_architecture(config, "m")
    find = tensor_name(row, len(parts.blocks))
    found = {}
    for linear in (*parts.linears(), parts.embedding, *([] if parts.head is None else [parts.head])):
        expert = expert_of(f"{linear.address}.weight", row)
        name = find(linear.parameter) if expert is None else f"blk.{expert.block}.ffn_{expert.parts[0][0]}_exps.weight"
        kind = stand_in(find_target("llama.cpp"), types[linear.address], linear.shape[1])
        assert found.setdefault(name, kind) == kind
    return found


def test_a_mix_is_made_of_a_model(tmp_path):
    folder = models.make(tmp_path / "model", dtype=torch.bfloat16)
    made = whet.compress(folder, tmp_path / "usual", target="llama.cpp", text=TEXT, samples=4, window=32)
    assert made["scheme"] == "Q4_K_M"
    file = read_gguf(tmp_path / "usual" / "model.gguf")
    assert {file.tensors[f"blk.0.{name}.weight"].type for name in ("attn_q", "attn_v")} == {"Q5_0"}  # 64 is no 256
    assert file.tensors["output.weight"].type == "Q8_0"
    again = whet.compress(
        folder, tmp_path / "other", target="llama.cpp", scheme="q5_k_s", embed="Q4_0", solver="nearest"
    )
    assert again["scheme"] == "Q5_K_S"
    file = read_gguf(tmp_path / "other" / "model.gguf")
    assert {t.type for n, t in file.tensors.items() if n.startswith("blk") and len(t.shape) > 1} == {"Q5_1"}
    assert file.tensors["token_embd.weight"].type == file.tensors["output.weight"].type == "Q4_0"
    values = gguf.dequantize(file.read("output.weight"), gguf.GGMLQuantizationType.Q4_0)
    assert values.shape == file.tensors["output.weight"].shape


def test_a_mix_is_of_a_whole_model_and_of_llama_cpp():
    with pytest.raises(UsageError, match=r"a whole model: give --scheme Q4_K_M with --for llama\.cpp"):
        parse_scheme("q4_k_m")
    with pytest.raises(UsageError, match="Did you mean Q3_K_L"):
        parse_scheme("Q3_K_LL")
