"""What a transformers config says, in the settings of llama.cpp's architectures.

What a row cannot express exactly is refused by name: llama.cpp reads a wrong setting without a word and computes
something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from whet.errors import UsageError

Settings = dict[str, Any]
_HARDLY = 1e-5  # radians a position: below it, what position turns a channel of an image does not matter


def common(config: Any) -> Settings:
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "vocab_size": config.vocab_size,
    }


def rotary(config: Any) -> Settings:
    """Rotary positions and RMS norms."""
    return _rotated(config) | {"attention.layer_norm_rms_epsilon": float(config.rms_norm_eps)}


def three_axes(config: Any) -> Settings:
    """Rotary positions of time, height and width, which are one number where there is only text."""
    sections = list(config.rope_parameters["mrope_section"])
    return rotary(config) | {"rope.dimension_sections": np.array([*sections, 0], dtype=np.int32)}


def interleaved_axes(config: Any) -> Settings:
    """Positions of three axes whose frequencies alternate: i belongs to time, height or width as i mod 3 is 0, 1 or 2.

    llama.cpp takes three times a section's length as a bound on i, and turns what lies beyond by a fourth position,
    which is 0 in a text; transformers turns it by time. In Qwen3-VL that is 61 and 62 of 64; in a tiny random model it
    was 6 of 8, and made KL 0.0002 nats. So sections are as long as the frequencies go, which is exact in texts. Those
    that height or width then turn in images, in place of time, must hardly turn (4e-7 radians a position in Qwen3-VL).
    """
    rope, count = config.rope_parameters, head_dim(config) // 2
    beyond = [i for i in range(count) if i % 3 and i >= 3 * rope["mrope_section"][i % 3]]
    if beyond and rope["rope_theta"] ** (-beyond[0] / count) > _HARDLY:
        raise UsageError(
            "its frequency {index} of {count} is turned by time, and llama.cpp turns it otherwise",
            index=beyond[0],
            count=count,
        )
    sections = [len(range(axis, count, 3)) for axis in range(3)]
    return rotary(config) | {"rope.dimension_sections": np.array([*sections, 0], dtype=np.int32)}


def deep_images(larger: Any) -> Settings:
    """How many of the first blocks are given more of an image, whose rows in llama.cpp are that much wider."""
    return {"n_deepstack_layers": len(larger.vision_config.deepstack_visual_indexes)}


def _rotated(config: Any) -> Settings:
    rope = getattr(config, "rope_parameters", None) or {}
    fraction = float(rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0)
    return common(config) | {
        "feed_forward_length": config.intermediate_size,
        "attention.head_count_kv": kv_heads(config),
        "attention.key_length": head_dim(config),
        "attention.value_length": head_dim(config),
        "rope.dimension_count": int(head_dim(config) * fraction),
    }


def experts(config: Any) -> Settings:
    if getattr(config, "mlp_only_layers", None) or getattr(config, "decoder_sparse_step", 1) != 1:
        raise UsageError("some of its blocks have no experts, which llama.cpp does not expect in this family")
    return {
        "expert_count": getattr(config, "num_local_experts", None) or config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
    }


def mixtral(config: Any) -> Settings:
    return rotary(config) | experts(config)


def qwen3_moe(config: Any) -> Settings:
    if not config.norm_topk_prob:
        raise UsageError("norm_topk_prob is false, and llama.cpp always divides the experts' weights by their sum")
    return rotary(config) | experts(config) | {"expert_feed_forward_length": config.moe_intermediate_size}


def gemma(every: int) -> Callable[[Any], Settings]:
    """Gemma 2 and 3: every n-th block attends to everything, the others within a window."""

    def settings(config: Any) -> Settings:
        found = rotary(config) | {"attention.sliding_window": config.sliding_window}
        check_windows(config, every)
        # llama.cpp takes this by the number of blocks: 46 and 62 are the models of 27 billion
        wide = config.num_hidden_layers in (46, 62)
        expected = config.hidden_size // config.num_attention_heads if wide else head_dim(config)
        if config.query_pre_attn_scalar != expected:
            raise UsageError(
                "query_pre_attn_scalar is {value}, llama.cpp takes {expected}",
                value=config.query_pre_attn_scalar,
                expected=expected,
            )
        if getattr(config, "use_bidirectional_attention", None):
            raise UsageError("it attends in both directions")
        caps = {
            "attn_logit_softcapping": config.attn_logit_softcapping,
            "final_logit_softcapping": config.final_logit_softcapping,
        }
        if every == 2 and not all(caps.values()):
            raise UsageError("it has no cap on logits, and llama.cpp always applies one in this family")
        if every != 2 and caps["attn_logit_softcapping"]:
            raise UsageError("it caps attention logits, which llama.cpp does not in this family")
        return found | {key: float(value) for key, value in caps.items() if value}

    return settings


def phi3(config: Any) -> Settings:
    settings = rotary(config)
    settings["rope.scaling.original_context_length"] = (
        config.rope_parameters.get("original_max_position_embeddings") or config.original_max_position_embeddings
    )
    return settings


def gpt2(config: Any) -> Settings:
    if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
        raise UsageError("it scales attention in a way that llama.cpp does not")
    return common(config) | {
        "feed_forward_length": config.n_inner or 4 * config.hidden_size,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
    }


def phi(config: Any) -> Settings:
    """Attention and feed-forward in parallel, biases everywhere, part of each head rotated."""
    if config.qk_layernorm or config.tie_word_embeddings:
        raise UsageError("llama.cpp reads a head of its own, and no norms of queries and keys, in this family")
    return _rotated(config) | {"attention.layer_norm_epsilon": float(config.layer_norm_eps)}


def olmo_first(config: Any) -> Settings:
    """Norms without weights."""
    found = _rotated(config) | {"attention.layer_norm_epsilon": 1e-5}
    return found if config.clip_qkv is None else found | {"attention.clamp_kqv": float(config.clip_qkv)}


def cohere(config: Any) -> Settings:
    """Attention and feed-forward in parallel, a factor on logits."""
    if config.use_qk_norm:
        raise UsageError("its queries and keys go through norms of their own, head by head, which whet does not write")
    return _rotated(config) | {
        "attention.layer_norm_epsilon": float(config.layer_norm_eps),
        "logit_scale": float(config.logit_scale),
    }


def nemotron(config: Any) -> Settings:
    """LayerNorms with one plus the weight; no gate."""
    check_head(config)
    return _rotated(config) | {"attention.layer_norm_epsilon": float(config.norm_eps)}


def smollm3(config: Any) -> Settings:
    """Every fourth block has no positions."""
    if [bool(one) for one in config.no_rope_layers] != _but_every(4, config.num_hidden_layers):
        raise UsageError("its blocks without positions are not every fourth one, as llama.cpp expects")
    return rotary(config)


def olmo(config: Any) -> Settings:
    """OLMo 2, and OLMo 3, whose blocks attend within a window but for every fourth."""
    check_head(config)
    settings = rotary(config)
    if any(kind == "sliding_attention" for kind in getattr(config, "layer_types", None) or ()):
        check_windows(config)
        thetas = {kind["rope_theta"] for kind in config.rope_parameters.values() if isinstance(kind, dict)}
        if len(thetas) > 1:
            raise UsageError("its rotary frequencies differ from block to block")
        settings["attention.sliding_window"] = config.sliding_window
    return settings


def exaone4(config: Any) -> Settings:
    """With windows in all blocks but every fourth, which alone has no positions then; or without any."""
    large = config.num_hidden_layers == 64
    if bool(window_of(config)) != large:
        raise UsageError("llama.cpp gives windows of attention to models of 64 blocks in this family, and to no others")
    if not large:
        return rotary(config)
    check_windows(config)
    return rotary(config) | {"attention.sliding_window": config.sliding_window}


def cohere2(config: Any) -> Settings:
    """Attention and feed-forward in parallel; every fourth block attends to everything, without positions."""
    check_windows(config)
    return _rotated(config) | {
        "attention.layer_norm_epsilon": float(config.layer_norm_eps),
        "attention.sliding_window": config.sliding_window,
        "logit_scale": float(config.logit_scale),
    }


def granite(config: Any) -> Settings:
    """What its embedding, attention, blocks and head multiply by."""
    return rotary(config) | {
        "embedding_scale": float(config.embedding_multiplier),
        "attention.scale": float(config.attention_multiplier),
        "residual_scale": float(config.residual_multiplier),
        "logit_scale": float(config.logits_scaling),
    }


def stablelm(config: Any) -> Settings:
    """Norms that take the mean away."""
    if config.qk_layernorm:
        raise UsageError("its queries and keys go through norms of their own, head by head, which whet does not write")
    check_head(config)
    return _rotated(config) | {"attention.layer_norm_epsilon": float(config.layer_norm_eps)}


def starcoder2(config: Any) -> Settings:
    """Biases everywhere."""
    if not config.use_bias:
        raise UsageError("it has no biases, and llama.cpp reads some in this family")
    return _rotated(config) | {"attention.layer_norm_epsilon": float(config.norm_epsilon)}


def falcon(config: Any) -> Settings:
    """Rotary positions, no biases, attention and feed-forward in parallel."""
    if config.alibi or config.bias or not (config.new_decoder_architecture or config.parallel_attn):
        raise UsageError("it has ALiBi, biases or blocks that are not parallel, which llama.cpp does not compute")
    if not (config.new_decoder_architecture or config.multi_query):
        raise UsageError("every head has keys and values of its own, in rows that whet does not put in order")
    if config.new_decoder_architecture and (config.num_ln_in_parallel_attn or 2) != 2:
        raise UsageError("its newer blocks have one norm, and llama.cpp expects two")
    return common(config) | {
        "feed_forward_length": config.ffn_hidden_size,
        "attention.head_count_kv": falcon_heads(config),
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
        "rope.dimension_count": head_dim(config),
    }


def falcon_heads(config: Any) -> int:
    """How many heads keys and values of a Falcon have."""
    return int(config.num_kv_heads) if config.new_decoder_architecture else 1


def gpt_neox(config: Any) -> Settings:
    """Part of each head is rotated; attention and feed-forward are parallel or not."""
    if not config.attention_bias or config.tie_word_embeddings:
        raise UsageError("llama.cpp reads biases of attention and a head of its own in this family")
    return _rotated(config) | {
        "attention.layer_norm_epsilon": float(config.layer_norm_eps),
        "attention.head_count_kv": config.num_attention_heads,
        "use_parallel_residual": bool(config.use_parallel_residual),
    }


def qwen2_moe(config: Any) -> Settings:
    """Experts whose weights are not made to sum to one, and one that every token goes to."""
    if config.norm_topk_prob:
        raise UsageError("norm_topk_prob is true, and llama.cpp never divides the experts' weights by their sum here")
    check_head(config)
    lengths = {
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_shared_feed_forward_length": config.shared_expert_intermediate_size,
    }
    return rotary(config) | experts(config) | lengths


def _but_every(step: int, blocks: int) -> list[bool]:
    return [(i + 1) % step != 0 for i in range(blocks)]


def check_windows(config: Any, every: int = 4) -> None:
    """Raises UsageError unless all blocks but each `every`-th attend within a window."""
    kinds = [kind == "sliding_attention" for kind in config.layer_types]
    if kinds != _but_every(every, config.num_hidden_layers) or not window_of(config):
        raise UsageError(
            "its blocks do not alternate as llama.cpp expects (one in {every} attends to everything)", every=every
        )


def check_head(config: Any) -> None:
    """Raises UsageError where the embedding is the head, for families of which llama.cpp reads one of its own."""
    if config.tie_word_embeddings:
        raise UsageError("its head is the embedding, and llama.cpp reads a head of its own in this family")


def head_dim(config: Any) -> int:
    """Width of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def kv_heads(config: Any) -> int:
    """How many heads keys and values have."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def window_of(config: Any) -> int:
    """Tokens that blocks with an attention window look back at; 0 where no block has one."""
    width = int(getattr(config, "sliding_window", None) or 0)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    return width if "sliding_attention" in kinds else 0


def rope_settings(config: Any, factors: tuple[str, ...]) -> tuple[Settings, dict[str, Tensor]]:
    """Rotary settings, and frequencies that llama.cpp takes as tensors."""
    every: Mapping[str, Any] = config.rope_parameters or {}
    local = every.get("sliding_attention")
    said: Mapping[str, Any] = every.get("full_attention", every)
    settings: Settings = {"rope.freq_base": float(said.get("rope_theta", 10000.0))}
    if local is not None:
        if local.get("rope_type", "default") != "default":
            raise UsageError("its local rotary frequencies are scaled ({type})", type=local["rope_type"])
        settings["rope.freq_base_swa"] = float(local["rope_theta"])
    kind = said.get("rope_type", "default")
    if kind == "linear":
        return settings | {"rope.scaling.type": "linear", "rope.scaling.factor": float(said["factor"])}, {}
    if kind == "yarn":
        return settings | _yarn(said, config), {}
    if kind == "llama3" and kind in factors:
        scaled, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
        width = 2 * len(scaled)
        plain = settings["rope.freq_base"] ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
        return settings, {"rope_freqs.weight": plain / scaled}
    if kind == "longrope" and kind in factors:
        before = said.get("original_max_position_embeddings") or config.original_max_position_embeddings
        longer = config.max_position_embeddings / before
        strength = said.get("attention_factor")
        if strength is None:
            strength = math.sqrt(1 + math.log(longer) / math.log(before)) if longer > 1 else 1.0
        settings |= {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": float(strength)}
        return settings, {
            f"rope_factors_{name}.weight": torch.tensor(said[f"{name}_factor"], dtype=torch.float32)
            for name in ("long", "short")
        }
    if kind == "dynamic" and said.get("alpha"):  # Hunyuan's: frequencies of another base, whatever the length
        width = head_dim(config)
        return {"rope.freq_base": settings["rope.freq_base"] * float(said["alpha"]) ** (width / (width - 2))}, {}
    if kind != "default":
        raise UsageError("its rotary frequencies are scaled by {type!r}, which whet does not write", type=kind)
    return settings, {}


def _yarn(said: Mapping[str, Any], config: Any) -> Settings:
    """YaRN's frequencies (arXiv:2309.00071), which llama.cpp computes itself; refuses what it computes otherwise."""
    if not said.get("truncate", True) and config.model_type != "gpt_oss":
        raise UsageError("its YaRN frequencies change between two channels (truncate is false), llama.cpp's at one")
    if (said.get("beta_fast") or 32, said.get("beta_slow") or 1) != (32, 1):
        raise UsageError("its YaRN has beta_fast and beta_slow of its own, llama.cpp takes 32 and 1 in this family")
    before = said.get("original_max_position_embeddings") or config.max_position_embeddings
    factor = float(said.get("factor") or config.max_position_embeddings / before)
    blocks = {"layer_type": "full_attention"} if "full_attention" in config.rope_parameters else {}
    _, strength = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"), **blocks)
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": int(before),
        # llama.cpp multiplies cosines and sines by what the paper recommends, and by this
        "rope.scaling.attn_factor": float(strength) / (1 + 0.1 * math.log(factor)),
    }
