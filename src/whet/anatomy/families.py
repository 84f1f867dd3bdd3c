"""Families of models as data: what the parts are called, which linears share an input, how weights are stored.

Adding a family is adding a row. Everything else in whet asks these tables and never an architecture's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whet.anatomy.encoders import CENTRED, ENCODERS
from whet.anatomy.family import AUTO, Family, Fold, LinearName, architecture_of, task_of
from whet.messages import Message

_ATTENTION = (
    LinearName("self_attn.q_proj", "q", "attention input"),
    LinearName("self_attn.k_proj", "k", "attention input"),
    LinearName("self_attn.v_proj", "v", "attention input"),
    LinearName("self_attn.o_proj", "o", "attention output"),
)
_FFN = (
    LinearName("mlp.gate_proj", "gate", "ffn input"),
    LinearName("mlp.up_proj", "up", "ffn input"),
    LinearName("mlp.down_proj", "down", "ffn middle"),
)
# Of which gate and up are rows of one tensor.
_FFN_OF_ONE = (
    LinearName("mlp.gate_up_proj", "gate", "ffn input"),
    LinearName("mlp.gate_up_proj", "up", "ffn input"),
    LinearName("mlp.down_proj", "down", "ffn middle"),
)
_GATED = (*_ATTENTION, *_FFN)

_RESIDUAL = Message("it is the residual stream itself, with no norm in between")
# Why a residual stream cannot be turned.
_WEIGHED = Message("norms weigh what its blocks write channel by channel, before the residual stream")
_ALTERNATING = Message("the rows of v alternate with those of q and k, head by head")
_WRITES = ("o", "down")
_INTO_ATTENTION = Fold(("attention input",), norm=("input_layernorm",))
_INTO_FFN = Fold(("ffn input",), norm=("post_attention_layernorm",))
_OUT_OF_ATTENTION = Fold(("attention output",), by="v", heads="num_key_value_heads")
_IN_FFN = Fold(("ffn middle",), by="up", act="hidden_act")
_GATED_FOLDS = (_INTO_ATTENTION, _INTO_FFN, _OUT_OF_ATTENTION, _IN_FFN)
# Of blocks that norm only what they write.
_AFTER_FOLDS = (Fold(("attention input", "ffn input"), why=_RESIDUAL), _OUT_OF_ATTENTION, _IN_FFN)


def _gemma(architecture: str, title: str) -> Family:
    """Its norms add 1 to what is stored, and what blocks write goes through norms of its own."""
    into_ffn = Fold(("ffn input",), norm=("pre_feedforward_layernorm",))
    return Family(
        (architecture,),
        _GATED,
        title,
        ties=True,
        softcap="final_logit_softcapping",
        folds=(_INTO_ATTENTION, into_ffn, _OUT_OF_ATTENTION, _IN_FFN),
        norm_adds=1.0,
        still=_WEIGHED,
    )


def _sparse_folds(*beside: str, dense: tuple[Fold, ...] = ()) -> tuple[Fold, ...]:
    """Of blocks with experts; what else reads the norm before those is `beside`."""
    experts = Fold(("expert {} input", "ffn input"), norm=("post_attention_layernorm",), kept=beside)
    return (_INTO_ATTENTION, experts, _OUT_OF_ATTENTION, Fold(("expert {} middle",), by="expert up"), *dense)


def _experts(gate: str, up: str, down: str) -> tuple[LinearName, ...]:
    """Experts of a gated feed-forward, one tensor each in files and stacked in the model."""
    return (
        LinearName(f"mlp.experts.{{}}.{gate}", "expert gate", "expert {} input", held="mlp.experts.gate_up_proj"),
        LinearName(f"mlp.experts.{{}}.{up}", "expert up", "expert {} input", held="mlp.experts.gate_up_proj"),
        LinearName(f"mlp.experts.{{}}.{down}", "expert down", "expert {} middle", held="mlp.experts.down_proj"),
    )


_SHARED = (
    LinearName("mlp.shared_expert.gate_proj", "shared gate", "ffn input"),
    LinearName("mlp.shared_expert.up_proj", "shared up", "ffn input"),
    LinearName("mlp.shared_expert.down_proj", "shared down", "shared middle"),
)
_NAMED_EXPERTS = _experts("gate_proj", "up_proj", "down_proj")


FAMILIES: dict[str, Family] = {
    "llama": Family(("LlamaForCausalLM",), _GATED, "Llama", folds=_GATED_FOLDS, writes=_WRITES),
    "mistral": Family(("MistralForCausalLM",), _GATED, "Mistral", folds=_GATED_FOLDS, writes=_WRITES),
    "qwen2": Family(("Qwen2ForCausalLM",), _GATED, "Qwen2", folds=_GATED_FOLDS, writes=_WRITES),
    "qwen3": Family(("Qwen3ForCausalLM",), _GATED, "Qwen3", folds=_GATED_FOLDS, writes=_WRITES),
    "gemma2": _gemma("Gemma2ForCausalLM", "Gemma 2"),
    "gemma3_text": _gemma("Gemma3ForCausalLM", "Gemma 3"),
    "olmo2": Family(
        ("Olmo2ForCausalLM",),
        _GATED,
        "OLMo 2",
        folds=_AFTER_FOLDS,
        still=_WEIGHED,
    ),
    "smollm3": Family(("SmolLM3ForCausalLM",), _GATED, "SmolLM3", ties=True, folds=_GATED_FOLDS, writes=_WRITES),
    "olmo3": Family(("Olmo3ForCausalLM",), _GATED, "OLMo 3", folds=_AFTER_FOLDS, still=_WEIGHED),
    "exaone4": Family(("Exaone4ForCausalLM",), _GATED, "EXAONE 4", folds=_AFTER_FOLDS, still=_WEIGHED),
    "granite": Family(
        ("GraniteForCausalLM",),
        _GATED,
        "Granite",
        folds=_GATED_FOLDS,
        writes=_WRITES,
        logit_scale=("logits_scaling", -1),
    ),
    "hyperclovax": Family(
        ("HyperCLOVAXForCausalLM",),
        _GATED,
        "HyperCLOVA X",
        folds=_GATED_FOLDS,
        still=_WEIGHED,
        logit_scale=("logits_scaling", 1),
    ),
    "glm4": Family(
        ("Glm4ForCausalLM",),
        (*_ATTENTION, *_FFN_OF_ONE),
        "GLM-4",
        folds=_GATED_FOLDS,
        still=_WEIGHED,
    ),
    "cohere2": Family(
        ("Cohere2ForCausalLM",),
        _GATED,
        "Cohere 2",
        ties=True,
        folds=(
            Fold(("attention input", "ffn input"), norm=("input_layernorm",)),
            _OUT_OF_ATTENTION,
            _IN_FFN,
        ),
        still=CENTRED,
        logit_scale=("logit_scale", 1),
    ),
    "seed_oss": Family(("SeedOssForCausalLM",), _GATED, "Seed-OSS", folds=_GATED_FOLDS, writes=_WRITES),
    "ernie4_5": Family(("Ernie4_5ForCausalLM",), _GATED, "Ernie 4.5", ties=True, folds=_GATED_FOLDS, writes=_WRITES),
    "hunyuan_v1_dense": Family(("HunYuanDenseV1ForCausalLM",), _GATED, "Hunyuan", folds=_GATED_FOLDS, writes=_WRITES),
    "ministral3": Family(("Ministral3ForCausalLM",), _GATED, "Ministral 3", folds=_GATED_FOLDS, writes=_WRITES),
    "stablelm": Family(
        ("StableLmForCausalLM",),
        _GATED,
        "StableLM",
        # in parallel blocks the feed-forward reads what attention reads
        folds=(
            _INTO_ATTENTION,
            Fold(("ffn input",), norm=("post_attention_layernorm", "input_layernorm")),
            _OUT_OF_ATTENTION,
            _IN_FFN,
        ),
        still=CENTRED,
    ),
    "starcoder2": Family(
        ("Starcoder2ForCausalLM",),
        (
            *_ATTENTION,
            LinearName("mlp.c_fc", "up", "ffn input"),
            LinearName("mlp.c_proj", "down", "ffn middle"),
        ),
        "StarCoder2",
        ties=True,
        folds=(
            _INTO_ATTENTION,
            _INTO_FFN,
            _OUT_OF_ATTENTION,
            Fold(("ffn middle",), by="up", act="hidden_act", usual="gelu_pytorch_tanh"),
        ),
        still=CENTRED,
    ),
    "falcon": Family(
        ("FalconForCausalLM",),
        (
            # in newer ones q, k and v alternate, so no part of the rows is one of them
            LinearName("self_attention.query_key_value", "qkv", "attention input"),
            LinearName("self_attention.dense", "o", "attention output"),
            LinearName("mlp.dense_h_to_4h", "up", "ffn input"),
            LinearName("mlp.dense_4h_to_h", "down", "ffn middle"),
        ),
        "Falcon",
        blocks="transformer.h",
        embedding="transformer.word_embeddings",
        norm="transformer.ln_f",
        width="ffn_hidden_size",
        ties=True,
        tupled=1,
        packed=Message("its linears are of a class of their own, which stock transformers does not load packed"),
        folds=(
            Fold(("attention input",), norm=("ln_attn", "input_layernorm")),
            Fold(("ffn input",), norm=("ln_mlp", "post_attention_layernorm", "input_layernorm")),
            Fold(("attention output",), why=_ALTERNATING),
            Fold(("ffn middle",), by="up", act="activation", usual="gelu"),
        ),
        still=CENTRED,
    ),
    "phi3": Family(
        ("Phi3ForCausalLM",),
        (
            LinearName("self_attn.qkv_proj", "q", "attention input", "num_attention_heads"),
            LinearName("self_attn.qkv_proj", "k", "attention input", "num_key_value_heads"),
            LinearName("self_attn.qkv_proj", "v", "attention input", "num_key_value_heads"),
            LinearName("self_attn.o_proj", "o", "attention output"),
            *_FFN_OF_ONE,
        ),
        "Phi-3",
        folds=_GATED_FOLDS,
        writes=_WRITES,
    ),
    "mixtral": Family(
        ("MixtralForCausalLM",),
        _ATTENTION,
        "Mixtral",
        alternatives=(_experts("w1", "w3", "w2"),),
        kept=("mlp.gate",),
        renames=((r"\.block_sparse_moe\.", ".mlp."),),
        folds=_sparse_folds("mlp.gate"),
        writes=("o", "expert down"),
    ),
    "qwen2_moe": Family(
        ("Qwen2MoeForCausalLM",),
        _ATTENTION,
        "Qwen2-MoE",
        alternatives=((*_NAMED_EXPERTS, *_SHARED), _FFN),
        kept=("mlp.gate", "mlp.shared_expert_gate"),
        folds=_sparse_folds(
            "mlp.gate", "mlp.shared_expert_gate", dense=(Fold(("shared middle",), by="shared up"), _IN_FFN)
        ),
        writes=(*_WRITES, "expert down", "shared down"),
    ),
    "qwen3_moe": Family(
        ("Qwen3MoeForCausalLM",),
        _ATTENTION,
        "Qwen3-MoE",
        alternatives=(_NAMED_EXPERTS, _FFN),
        kept=("mlp.gate",),
        folds=_sparse_folds("mlp.gate", dense=(_IN_FFN,)),
        writes=(*_WRITES, "expert down"),
    ),
    "gpt2": Family(
        ("GPT2LMHeadModel",),
        (
            LinearName("attn.c_attn", "q", "attention input", transposed=True),
            LinearName("attn.c_attn", "k", "attention input", transposed=True),
            LinearName("attn.c_attn", "v", "attention input", transposed=True),
            LinearName("attn.c_proj", "o", "attention output", transposed=True),
            LinearName("mlp.c_fc", "up", "ffn input", transposed=True),
            LinearName("mlp.c_proj", "down", "ffn middle", transposed=True),
        ),
        "GPT-2",
        blocks="transformer.h",
        embedding="transformer.wte",
        norm="transformer.ln_f",
        beside=("transformer.wpe",),
        count=("n_layer",),
        width="n_inner",
        ties=True,
        computed=(".attn.bias", ".attn.masked_bias"),
        # the first checkpoints have no prefix
        renames=((r"^(?=(h|wte|wpe|ln_f)\.)", "transformer."),),
        folds=(
            Fold(("attention input",), norm=("ln_1",)),
            Fold(("ffn input",), norm=("ln_2",)),
            Fold(("attention output",), by="v", heads="n_head"),
            Fold(("ffn middle",), by="up", act="activation_function", usual="gelu_new"),
        ),
        still=CENTRED,
    ),
    "gpt_neox": Family(
        ("GPTNeoXForCausalLM",),
        (
            # q, k and v alternate head by head, so no part of the rows is one of them
            LinearName("attention.query_key_value", "qkv", "attention input"),
            LinearName("attention.dense", "o", "attention output"),
            LinearName("mlp.dense_h_to_4h", "up", "ffn input"),
            LinearName("mlp.dense_4h_to_h", "down", "ffn middle"),
        ),
        "GPT-NeoX",
        blocks="gpt_neox.layers",
        embedding="gpt_neox.embed_in",
        norm="gpt_neox.final_layer_norm",
        computed=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
        renames=((r"^embed_out\.", "lm_head."),),
        folds=(
            _INTO_ATTENTION,
            _INTO_FFN,
            Fold(("attention output",), why=_ALTERNATING),
            Fold(("ffn middle",), by="up", act="hidden_act", usual="gelu"),
        ),
        still=CENTRED,
    ),
    "opt": Family(
        ("OPTForCausalLM",),
        (
            *_ATTENTION[:3],
            LinearName("self_attn.out_proj", "o", "attention output"),
            LinearName("fc1", "up", "ffn input"),
            LinearName("fc2", "down", "ffn middle"),
        ),
        "OPT",
        blocks="model.decoder.layers",
        embedding="model.decoder.embed_tokens",
        norm="model.decoder.final_layer_norm",
        beside=("model.decoder.embed_positions",),
        width="ffn_dim",
        ties=True,
        renames=((r"^decoder\.", "model.decoder."),),
        folds=(
            Fold(("attention input",), norm=("self_attn_layer_norm",), only="do_layer_norm_before"),
            Fold(("ffn input",), norm=("final_layer_norm",), only="do_layer_norm_before"),
            Fold(("attention output",), by="v", heads="num_attention_heads"),
            Fold(("ffn middle",), by="up", act="activation_function"),
        ),
        still=CENTRED,
    ),
    **ENCODERS,
}


def task_in(config: Mapping[str, Any]) -> str:
    """What a model with this config.json answers, as `Family.task` names it."""
    family, architecture = FAMILIES.get(str(config.get("model_type", ""))), architecture_of(config)
    return family.task(architecture) if family is not None else task_of(architecture)


def auto_class(config: Mapping[str, Any]) -> str:
    """The automatic class of transformers that builds what config.json's architecture is for."""
    return AUTO[task_in(config)]
