"""Tiny random models of every family in real folders, made in a fraction of a second: what most tests begin with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

from whet import anatomy as rows

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
VOCABULARY = 264
# What each family's config is called otherwise, and what it needs beside the usual. Windows of 6 are shorter than any
# test's text, and both kinds of attention occur.
_WINDOWS = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6}
_SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_OWN: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 6},
    "qwen3": {"head_dim": 16},
    "gemma2": {**_WINDOWS, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0},
    "gemma3_text": {**_WINDOWS, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "smollm3": {"pad_token_id": 1, "no_rope_layers": [1, 0, 1]},
    "phi3": {"pad_token_id": 1},
    "olmo3": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "exaone4": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "granite": {
        "embedding_multiplier": 3.0,
        "logits_scaling": 4.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "pad_token_id": 1,
    },
    "hyperclovax": {
        "embedding_multiplier": 3.0,
        "logits_scaling": 0.5,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "pad_token_id": 1,
    },
    "glm4": {"head_dim": 16, "partial_rotary_factor": 0.5, "pad_token_id": 1},
    "cohere2": {
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "pad_token_id": 1,
    },
    "seed_oss": {"head_dim": 32, "pad_token_id": 1},
    "ernie4_5": {"head_dim": 16, "pad_token_id": 1},
    "hunyuan_v1_dense": {"head_dim": 16, "pad_token_id": 1},
    "ministral3": {"head_dim": 16, "pad_token_id": 1},
    "stablelm": {"use_qkv_bias": True, "pad_token_id": 1},
    "starcoder2": {"pad_token_id": 1, "sliding_window": 6},
    "falcon": {"ffn_hidden_size": 96, "pad_token_id": 1},
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {**_SPARSE, "shared_expert_intermediate_size": 64, "mlp_only_layers": [0]},
    "qwen3_moe": {**_SPARSE, "head_dim": 16},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "zaya": {"num_experts": 4, "num_experts_per_tok": 1, "head_dim": 16},
    "gpt_neox": {"rotary_pct": 0.5},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64, "pad_token_id": 1},
    "t5": {"d_kv": 16, "decoder_start_token_id": 0, "pad_token_id": 0},
}
_CALLED = {
    "gpt2": {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "intermediate_size": "n_inner",
    },
    "distilbert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    },
    "t5": {
        "hidden_size": "d_model",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "d_ff",
    },
}
CARD = """---
license: mit
language:
- ko
- en
tags:
- tiny
pipeline_tag: text-generation
---
# A tiny model
"""


def documents(count: int = 30, words: int = 40, seed: int = 0) -> list[str]:
    """Documents of random words in two languages, the same for the same seed."""
    return [
        " ".join(random.Random(seed * 1000 + i).choices(["가나", "ab", "cd", "마바사", "e.", "for", "the"], k=words))
        for i in range(count)
    ]


def tokenizer(extra: int = 0, leads: bool = True) -> PreTrainedTokenizerFast:
    """One token a byte, `<s>` before a text if it `leads`, and `extra` tokens that occur as the words `extra0` …"""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(["<s>", "</s>", *alphabet])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if leads:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    core.add_tokens([f"extra{i}" for i in range(extra)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def config(family: str = "llama", tied: bool = False, blocks: int = 2, **more: Any) -> Any:
    """A tiny model's configuration: hidden 64, FFN 96, 4 query and 2 key-value heads; windows look back 6 tokens."""
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": blocks,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.08,
    }
    called = _CALLED.get(family, {})
    settings = {called.get(key, key): value for key, value in settings.items()}
    own = {
        k: v[:blocks] if isinstance(v, list) and k != "mlp_only_layers" else v for k, v in _OWN.get(family, {}).items()
    }
    return AutoConfig.for_model(family, **{**settings, **own, **more})


def make(
    folder: Path,
    family: str = "llama",
    *,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    shards: bool = False,
    seed: int = 0,
    with_tokenizer: bool = True,
    architecture: str = "AutoModelForCausalLM",
    **more: Any,
) -> Path:
    """Save a random model with tokenizer and card into `folder`; norms and biases are random too."""
    torch.manual_seed(seed)
    kind = getattr(transformers, architecture)
    model = kind.from_config(config(family, tied, **more), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() or "ln_" in name or name.endswith("bias"):
                parameter += 0.2 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder, max_shard_size=120_000 if shards else "5GB")
    if with_tokenizer:
        tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / "LICENSE").write_text("the licence of the tiny model\n")
    return folder


@contextlib.contextmanager
def without_rows(families: Iterable[str]) -> Iterator[None]:
    """Families that have a row by now are found as if they had none."""
    before = dict(rows.FAMILIES)
    for name in families:
        rows.FAMILIES.pop(name, None)
    try:
        yield
    finally:
        rows.FAMILIES.clear()
        rows.FAMILIES.update(before)  # in their order


def relist(folder: Path, name: str) -> None:
    """Tell whet.json of `folder` that the file `name` is what it is now."""
    manifest = json.loads((folder / "whet.json").read_text(encoding="utf-8"))
    data = (folder / name).read_bytes()
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "whet.json").write_text(json.dumps(manifest), encoding="utf-8")


def edit_config(folder: Path, remove: tuple[str, ...] = (), **changes: Any) -> None:
    """Change config.json of a folder."""
    file = folder / "config.json"
    settings = {k: v for k, v in json.loads(file.read_text()).items() if k not in remove} | changes
    file.write_text(json.dumps(settings, indent=2))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
