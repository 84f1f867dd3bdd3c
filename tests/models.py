"""Tiny random models of every family in real folders, made in a fraction of a second: what most tests begin with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
VOCABULARY = 264
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
    """A tiny model's configuration: hidden 64, FFN 96, 4 query and 2 key-value heads; Mistral looks back 6 tokens."""
    if family == "mistral":
        more.setdefault("sliding_window", 6)
    if family == "qwen3":
        more.setdefault("head_dim", 16)
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
    return AutoConfig.for_model(family, **{**settings, **more})


def make(
    folder: Path,
    family: str = "llama",
    *,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    shards: bool = False,
    seed: int = 0,
    with_tokenizer: bool = True,
    **more: Any,
) -> Path:
    """Save a random model with tokenizer and card into `folder`; norms and biases are random too."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(family, tied, **more), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter += 0.2 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder, max_shard_size=120_000 if shards else "5GB")
    if with_tokenizer:
        tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / "LICENSE").write_text("the licence of the tiny model\n")
    return folder


def edit_config(folder: Path, remove: tuple[str, ...] = (), **changes: Any) -> None:
    """Change config.json of a folder."""
    file = folder / "config.json"
    settings = {k: v for k, v in json.loads(file.read_text()).items() if k not in remove} | changes
    file.write_text(json.dumps(settings, indent=2))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
