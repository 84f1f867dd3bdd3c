"""Settings of families with experts, latent attention, or convolutions between their attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whet.errors import UsageError
from whet.formats.gguf import settings as of
from whet.formats.gguf.settings import Settings
from whet.messages import Message

_CHUNK = 8192  # tokens of Llama 4 that attend to each other
_SOFTMAX, _SIGMOID = 1, 2  # what llama.cpp makes of a router's outputs


def olmoe(config: Any) -> Settings:
    """Norms over all heads; weights of experts that are not made to sum to one."""
    if config.norm_topk_prob or config.clip_qkv is not None:
        raise UsageError("llama.cpp neither clips q, k and v here nor divides the experts' weights by their sum")
    _check_keys(config)
    return of.rotary(config) | _counts(config)


def granite_moe(config: Any) -> Settings:
    """Granite's factors, and experts chosen before their weights are."""
    return of.granite(config) | _counts(config)


def gpt_oss(config: Any) -> Settings:
    """Windows in every other block, sinks, experts with biases."""
    if (config.swiglu_limit, config.swiglu_alpha) != (7.0, 1.702):
        raise UsageError("its experts' activation has bounds of its own, llama.cpp's are 7 and 1.702")
    if not config.attention_bias or config.tie_word_embeddings:
        raise UsageError("llama.cpp reads biases of attention and a head of its own in this family")
    of.check_windows(config, 2)
    found = of.rotary(config) | _counts(config, config.intermediate_size)
    return found | {"attention.sliding_window": config.sliding_window}


NEARLY_YARN = Message(
    "llama.cpp lets YaRN's frequencies change between whole channels in this family, transformers between fractions of "
    "them: logits differ a little, the more the longer the text"
)


def latent(config: Any) -> Settings:
    """DeepSeek V2 and V3: keys and values of all heads from one latent, which the file makes anew for every head.

    llama.cpp can keep the latent alone, for which it needs the matrix that gives keys transposed, head by head; codes
    would have to be rounded again.
    """
    if getattr(config, "rope_interleave", True) is False:
        raise UsageError("its rotary channels are halves, and llama.cpp turns neighbours in this family")
    if config.attention_bias:
        raise UsageError("attention_bias is true, and llama.cpp does not read those biases")
    of.check_head(config)
    turned = config.qk_rope_head_dim
    found = of.rotary(config) | {
        "attention.head_count_kv": config.num_attention_heads,
        "attention.key_length": config.qk_nope_head_dim + turned,
        "attention.value_length": config.v_head_dim,
        "attention.kv_lora_rank": config.kv_lora_rank,
        "rope.dimension_count": turned,
    }
    if config.q_lora_rank is not None:
        found["attention.q_lora_rank"] = config.q_lora_rank
    return found


def deepseek_v2(config: Any) -> Settings:
    if config.topk_method != "greedy" and (config.n_group or 1) > 1:
        raise UsageError("it chooses groups of experts by their best one, and llama.cpp by their best two")
    return latent(config) | _shared(config) | _gating(_SOFTMAX, False, config.routed_scaling_factor)


def deepseek_v3(config: Any) -> Settings:
    return latent(config) | _shared(config) | _sigmoid(config)


def dots(config: Any) -> Settings:
    """Attention with norms on heads, experts as DeepSeek V3 has them."""
    of.check_head(config)
    _check_keys(config)
    return of.rotary(config) | _shared(config) | _sigmoid(config)


def glm4_moe(config: Any) -> Settings:
    of.check_head(config)
    return of.rotary(config) | _shared(config) | _sigmoid(config)


def ernie_moe(config: Any) -> Settings:
    """Experts from some block on; their weights by softmax, the choice with a bias."""
    last = config.moe_layer_end_index
    every = config.moe_layer_interval == 1 and last in (-1, config.num_hidden_layers - 1)
    if not every or config.use_bias:
        raise UsageError("it has biases, or experts in some blocks alone, which llama.cpp does not expect")
    shared = config.moe_num_shared_experts
    return of.rotary(config) | {
        "expert_count": config.moe_num_experts,
        "expert_used_count": config.moe_k,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_shared_count": shared,
        "expert_shared_feed_forward_length": config.moe_intermediate_size * shared,
        "leading_dense_block_count": config.moe_layer_start_index,
        "interleave_moe_layer_step": 1,
    }


def hunyuan_moe(config: Any) -> Settings:
    """One shared expert of the usual width."""
    if not isinstance(config.num_experts, int) or not isinstance(config.moe_topk, int):
        raise UsageError("its blocks have different numbers of experts")
    return of.rotary(config) | {
        "expert_count": config.num_experts,
        "expert_used_count": config.moe_topk,
        "expert_feed_forward_length": config.intermediate_size,
        "expert_shared_feed_forward_length": config.intermediate_size,
        "expert_shared_count": 1,
    }


def minimax_m2(config: Any) -> Settings:
    of.check_head(config)
    found = of.rotary(config) | _counts(config, config.intermediate_size)
    return found | {"expert_gating_func": _SIGMOID}


def qwen3_vl_moe(config: Any) -> Settings:
    """Qwen3's experts under positions of three axes."""
    if not getattr(config, "norm_topk_prob", True):
        raise UsageError("norm_topk_prob is false, and llama.cpp always divides the experts' weights by their sum")
    return (
        of.interleaved_axes(config) | of.experts(config) | {"expert_feed_forward_length": config.moe_intermediate_size}
    )


def lfm2(config: Any) -> Settings:
    """Short convolutions, and attention in some blocks."""
    if config.conv_bias or not config.tie_word_embeddings:
        raise UsageError("its convolutions have biases, or its head is not the embedding, which llama.cpp expects")
    width = config.intermediate_size
    if getattr(config, "block_auto_adjust_ff_dim", False):
        width = int(2 * width / 3)
        if config.block_ffn_dim_multiplier is not None:
            step = config.block_multiple_of
            width = -(-int(config.block_ffn_dim_multiplier * width) // step) * step
    heads = [of.kv_heads(config) if kind == "full_attention" else 0 for kind in config.layer_types]
    rope = of.common(config) | {"rope.dimension_count": of.head_dim(config)}
    return rope | {
        "feed_forward_length": width,
        "attention.head_count_kv": np.array(heads, dtype=np.int32),
        "attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "shortconv.l_cache": config.conv_L_cache,
    }


def lfm2_moe(config: Any) -> Settings:
    if not (config.norm_topk_prob and config.use_expert_bias) or config.routed_scaling_factor != 1.0:
        raise UsageError("its experts are weighed otherwise than llama.cpp does in this family")
    return (
        lfm2(config)
        | _counts(config, config.moe_intermediate_size)
        | {
            "leading_dense_block_count": config.num_dense_layers,
            "expert_gating_func": _SIGMOID,
        }
    )


def short_convolution(own: str) -> Callable[[Tensor], Tensor] | None:
    """A convolution over channels by themselves, whose middle dimension has one number."""
    return (lambda value: value.squeeze(1)) if own.endswith(("conv.conv.weight", "conv1d.weight")) else None


def llama4(config: Any) -> Settings:
    """Experts whose inputs are weighed; chunks of attention, and blocks without positions."""
    kinds = [bool(one) for one in config.no_rope_layers]
    if kinds != [(i + 1) % 4 != 0 for i in range(config.num_hidden_layers)]:
        raise UsageError("its blocks without positions are not every fourth one, as llama.cpp expects")
    step = config.interleave_moe_layer_step
    if list(config.moe_layers) != list(range(step - 1, config.num_hidden_layers, step)):
        raise UsageError("its blocks with experts do not alternate as llama.cpp expects")
    of.check_head(config)
    if config.attention_chunk_size != _CHUNK:
        raise UsageError("its chunks of attention are not of {size} tokens, as llama.cpp expects", size=_CHUNK)
    if config.num_experts_per_tok != 1 or config.use_qk_norm == (config.num_local_experts == 128):
        raise UsageError("llama.cpp takes one expert a token here, and norms of queries and keys unless there are 128")
    return of.rotary(config) | {
        "feed_forward_length": config.intermediate_size_mlp,
        "expert_count": config.num_local_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.intermediate_size,
        "interleave_moe_layer_step": step,
    }


def no_prefix(larger: Any) -> Settings:
    """Raises UsageError for PaliGemma, whose prompts attend in both directions."""
    if "paligemma" in str(larger.model_type):
        raise UsageError("its prompts attend in both directions")
    return {}


def qwen3_next(config: Any) -> Settings:
    """Gated delta rules, and gated attention in every fourth block."""
    every = [kind == "full_attention" for kind in config.layer_types]
    step = every.index(True) + 1 if any(every) else 0
    if not step or every != [(i + 1) % step == 0 for i in range(config.num_hidden_layers)]:
        raise UsageError("its blocks with attention do not come at equal distances")
    if not config.norm_topk_prob or config.mlp_only_layers or config.decoder_sparse_step != 1:
        raise UsageError("some blocks have no experts, or their weights do not sum to one")
    of.check_head(config)
    return of.rotary(config) | {
        "expert_count": config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_shared_feed_forward_length": config.shared_expert_intermediate_size,
        "ssm.conv_kernel": config.linear_conv_kernel_dim,
        "ssm.state_size": config.linear_key_head_dim,
        "ssm.group_count": config.linear_num_key_heads,
        "ssm.time_step_rank": config.linear_num_value_heads,
        "ssm.inner_size": config.linear_value_head_dim * config.linear_num_value_heads,
        "full_attention_interval": step,
    }


def delta_rule(own: str) -> Callable[[Tensor], Tensor] | None:
    """Rates of decay as llama.cpp wants them."""
    if own.endswith(".A_log"):
        return lambda value: -value.exp()
    return short_convolution(own)


def keys_and_gates(config: Any, target: str, rows: int) -> dict[str, Tensor] | None:
    """Qwen3-Next's q, k, v and gates of a group of heads, one group after the other: the gates are another tensor."""
    if not target.endswith("ssm_in.weight"):
        return None
    groups, key = config.linear_num_key_heads, config.linear_key_head_dim
    value = config.linear_value_head_dim * (config.linear_num_value_heads // groups)
    q, k, v, z = torch.arange(rows).reshape(groups, -1).split((key, key, value, value), dim=1)
    whole = torch.cat([part.flatten() for part in (q, k, v)])
    return {target.replace("ssm_in", "attn_qkv"): whole, target.replace("ssm_in", "attn_gate"): z.flatten()}


def _check_keys(config: Any) -> None:
    """Raises UsageError where several heads share a key, for families of which llama.cpp reads one for each."""
    if of.kv_heads(config) != config.num_attention_heads:
        raise UsageError("several of its heads share a key, and llama.cpp reads one for each in this family")


def _counts(config: Any, width: int | None = None) -> Settings:
    found = {
        "expert_count": getattr(config, "num_local_experts", None) or config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
    }
    return found if width is None else found | {"expert_feed_forward_length": width}


def _shared(config: Any) -> Settings:
    """Experts of which some take every token, after a few blocks without."""
    return {
        "expert_count": config.n_routed_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_shared_count": config.n_shared_experts,
        "leading_dense_block_count": config.first_k_dense_replace,
    }


def _sigmoid(config: Any) -> Settings:
    """Weights of experts by sigmoid; with groups, those of the two best experts together."""
    found = _gating(_SIGMOID, config.norm_topk_prob, config.routed_scaling_factor)
    if (config.n_group or 1) > 1:
        found |= {"expert_group_count": config.n_group, "expert_group_used_count": config.topk_group}
    return found


def _gating(function: int, summed: bool, factor: float) -> Settings:
    return {
        "expert_gating_func": function,
        "expert_weights_norm": bool(summed),
        "expert_weights_scale": float(factor),
    }


def latent_yarn(config: Any, found: Settings) -> Settings:
    """YaRN in DeepSeek, whose strength is in the scale of attention: `mscale_all_dim`, a factor on a logarithm."""
    said = config.rope_parameters
    if not said.get("mscale_all_dim") or said.get("mscale") != said["mscale_all_dim"]:
        raise UsageError("the two factors of its YaRN (mscale, mscale_all_dim) differ, or there are none")
    kept = {key: value for key, value in found.items() if key != "rope.scaling.attn_factor"}
    return kept | {"rope.scaling.yarn_log_multiplier": 0.1 * float(said["mscale_all_dim"])}
