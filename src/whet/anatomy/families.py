"""Families of models as data: what the parts are called, which linears share an input.

Adding a family is adding a row. Everything else in whet asks these tables and never an architecture's name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearName:
    """A linear of a block: its module `path` inside the block, its `role`, and the input it `reads`.

    Linears of a block with the same `reads` see the same tensor, so they share one second moment and are solved
    together.
    """

    path: str
    role: str
    reads: str


@dataclass(frozen=True)
class Family:
    """`architectures` that the row describes, and module names: the list of `blocks`, embedding, final norm, head.

    A tensor in a block whose name ends like one of `computed` is not read by anyone.
    """

    architectures: tuple[str, ...]
    linears: tuple[LinearName, ...]
    blocks: str = "model.layers"
    embedding: str = "model.embed_tokens"
    norm: str = "model.norm"
    head: str = "lm_head"
    # buffers that old versions stored inside blocks and that are computed from the config today
    computed: tuple[str, ...] = (".rotary_emb.inv_freq",)


_GATED = (
    LinearName("self_attn.q_proj", "q", "attention input"),
    LinearName("self_attn.k_proj", "k", "attention input"),
    LinearName("self_attn.v_proj", "v", "attention input"),
    LinearName("self_attn.o_proj", "o", "attention output"),
    LinearName("mlp.gate_proj", "gate", "ffn input"),
    LinearName("mlp.up_proj", "up", "ffn input"),
    LinearName("mlp.down_proj", "down", "ffn middle"),
)

FAMILIES: dict[str, Family] = {
    "llama": Family(("LlamaForCausalLM",), _GATED),
    "mistral": Family(("MistralForCausalLM",), _GATED),
    "qwen2": Family(("Qwen2ForCausalLM",), _GATED),
    "qwen3": Family(("Qwen3ForCausalLM",), _GATED),
}
