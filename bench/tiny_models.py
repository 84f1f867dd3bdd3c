"""Tiny random models of several families in real folders, and text for them: what `same_bytes.py` compresses.

Each is made from a seed in a fraction of a second, with norms and biases that are random too, and a tokenizer with one
token a byte. Nothing is imported from whet, so every version of whet gets the same models.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

VOCABULARY = 264
_CHAT = "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}{% endfor %}"
USUAL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.08,
}


@dataclass(frozen=True)
class Tiny:
    """A model: its family, the task of its automatic class, the type of its weights, and what differs from `USUAL`."""

    family: str
    more: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    task: str = "CausalLM"


_NARROW = {"hidden_size": 32, "intermediate_size": 64, "tie_word_embeddings": True}
_WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
_WINDOWS = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6, "tie_word_embeddings": True}
_SPARSE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [0]}
TINY = {
    "llama": Tiny("llama"),
    "llama-bfloat16": Tiny("llama", dtype=torch.bfloat16),
    "llama-float16": Tiny("llama", dtype=torch.float16),
    # small enough for runs of many steps, and wide enough for blocks of 256 weights
    "narrow": Tiny("llama", _NARROW, torch.bfloat16),
    "one block": Tiny("llama", {**_NARROW, "num_hidden_layers": 1}),
    "wide": Tiny("llama", _WIDE, torch.bfloat16),
    # heads wider together than hidden states
    "qwen3": Tiny("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    # biases
    "qwen2": Tiny("qwen2", dtype=torch.bfloat16),
    # several linears in one tensor
    "phi3": Tiny("phi3", dtype=torch.bfloat16),
    # norms that weigh what blocks write, a bound on logits, two kinds of attention
    "gemma2": Tiny("gemma2", {**_WINDOWS, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 5.0}),
    # experts; experts beside a shared one, after a dense block
    "mixtral": Tiny("mixtral", {"num_local_experts": 4, "sliding_window": None}),
    "qwen2_moe": Tiny("qwen2_moe", {**_SPARSE, "shared_expert_intermediate_size": 64}, torch.bfloat16),
    # transposed linears, LayerNorm
    "gpt2": Tiny("gpt2", {"tie_word_embeddings": True}),
    "bert": Tiny("bert", {"tie_word_embeddings": True}, task="MaskedLM"),
    "t5": Tiny(
        "t5",
        {"d_kv": 16, "decoder_start_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": True},
        task="Seq2SeqLM",
    ),
    # no table of its family in whet
    "starcoder2": Tiny("starcoder2", dtype=torch.bfloat16),
}
_CALLED = {
    "gpt2": {
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    },
    "t5": {
        "hidden_size": "d_model",
        "intermediate_size": "d_ff",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
    },
}


def make(name: str, folder: Path) -> Path:
    """Write the model of that name in TINY into `folder`, which is returned."""
    tiny = TINY[name]
    called = _CALLED.get(tiny.family, {})
    settings = {called.get(key, key): value for key, value in (USUAL | tiny.more).items()}
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = AutoConfig.for_model(tiny.family, **settings)
    model = getattr(transformers, f"AutoModelFor{tiny.task}").from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for of, parameter in model.named_parameters():
            if "norm" in of.lower() or "ln_" in of or of.endswith("bias"):
                parameter += 0.2 * torch.randn_like(parameter)
    model.to(tiny.dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(["<s>", "</s>", *alphabet])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=_CHAT
    )


def windows(count: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Random tokens of the tiny models, int64 `[count, tokens]`."""
    return torch.randint(2, VOCABULARY - 6, (count, tokens), generator=torch.Generator().manual_seed(seed))


def documents(count: int, seed: int = 0) -> list[str]:
    """Sums and short sentences in two languages, one paragraph a document: text for the embedded model too."""
    chance = random.Random(seed)
    things = ["fox", "bear", "river", "stone", "apple", "lamp"]
    korean = ["여우", "곰", "강", "돌", "사과", "등불"]
    found = []
    for _ in range(count):
        a, b = chance.randrange(50), chance.randrange(50)
        one, other = chance.sample(range(len(things)), 2)
        lines = [f"{a} + {b} = {a + b}", f"The {things[one]} saw the {things[other]} and went home."]
        lines += [f"{korean[one]} 옆에 {korean[other]} 하나가 있었습니다.", f"{a + b} - {a} = {b}"]
        chance.shuffle(lines)
        found.append("\n".join(lines))
    return found
