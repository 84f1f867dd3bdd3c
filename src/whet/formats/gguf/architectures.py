"""Architectures as llama.cpp knows them: one row a family, with what has to be done to its tensors and settings.

Names of tensors come from the `gguf` package's own maps. What a row cannot express exactly is refused by name:
llama.cpp reads a wrong setting without a word and computes something else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from whet.errors import UsageError
from whet.messages import Message

Settings = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A family in llama.cpp.

    arch: its name there. settings: of a transformers config, without the architecture's prefix. activations: the ones
    its code computes. permuted: rows of q and k lie in pairs, as its rotary code wants them. shifted: norms are stored
    as one plus the weight. transposed: linears of blocks are stored `[in, out]` by transformers. always_tied: it has no
    head of its own. square: heads times their width must be the hidden width. factors: the tensor that takes rotary
    frequencies, by their kind. prefix: what some checkpoints leave out before the names of tensors.
    """

    arch: MODEL_ARCH
    settings: Callable[[Any], Settings]
    activations: tuple[str, ...] = ("silu",)
    permuted: bool = False
    shifted: bool = False
    transposed: bool = False
    always_tied: bool = False
    square: bool = False
    factors: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def name(self) -> str:
        """What the file calls it."""
        return MODEL_ARCH_NAMES[self.arch]


def _common(config: Any) -> Settings:
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "vocab_size": config.vocab_size,
    }


def _rotary(config: Any) -> Settings:
    return _common(config) | {
        "feed_forward_length": config.intermediate_size,
        "attention.head_count_kv": kv_heads(config),
        "attention.key_length": head_dim(config),
        "attention.value_length": head_dim(config),
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": int(head_dim(config) * getattr(config, "partial_rotary_factor", 1.0)),
    }


def _experts(config: Any) -> Settings:
    return {
        "expert_count": getattr(config, "num_local_experts", None) or config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
    }


def _mixtral(config: Any) -> Settings:
    return _rotary(config) | _experts(config)


def _qwen3_moe(config: Any) -> Settings:
    if not config.norm_topk_prob:
        raise UsageError("norm_topk_prob is false, and llama.cpp always divides the experts' weights by their sum")
    if getattr(config, "mlp_only_layers", None) or getattr(config, "decoder_sparse_step", 1) != 1:
        raise UsageError("some of its blocks have no experts, which llama.cpp does not expect in this family")
    return _rotary(config) | _experts(config) | {"expert_feed_forward_length": config.moe_intermediate_size}


def _gemma(every: int) -> Callable[[Any], Settings]:
    """Gemma 2 and 3: every n-th block attends to everything, the others within a window."""

    def settings(config: Any) -> Settings:
        found = _rotary(config) | {"attention.sliding_window": config.sliding_window}
        kinds = [
            "full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(len(config.layer_types))
        ]
        if list(config.layer_types) != kinds:
            raise UsageError(
                "its blocks do not alternate as llama.cpp expects (one in {every} attends to everything)", every=every
            )
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


def _phi3(config: Any) -> Settings:
    settings = _rotary(config)
    rope = config.rope_parameters
    fraction = rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))
    settings["rope.dimension_count"] = int(head_dim(config) * fraction)
    settings["rope.scaling.original_context_length"] = (
        rope.get("original_max_position_embeddings") or config.original_max_position_embeddings
    )
    return settings


def _gpt2(config: Any) -> Settings:
    if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
        raise UsageError("it scales attention in a way that llama.cpp does not")
    return _common(config) | {
        "feed_forward_length": config.n_inner or 4 * config.hidden_size,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
    }


_LLAMA = Architecture(MODEL_ARCH.LLAMA, _rotary, permuted=True, factors=("llama3",))

ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": Architecture(MODEL_ARCH.LLAMA, _mixtral, permuted=True),
    "qwen2": Architecture(MODEL_ARCH.QWEN2, _rotary, square=True),
    "qwen3": Architecture(MODEL_ARCH.QWEN3, _rotary),
    "qwen3_moe": Architecture(MODEL_ARCH.QWEN3MOE, _qwen3_moe),
    "gemma2": Architecture(
        MODEL_ARCH.GEMMA2, _gemma(2), activations=("gelu_pytorch_tanh",), shifted=True, always_tied=True
    ),
    "gemma3_text": Architecture(MODEL_ARCH.GEMMA3, _gemma(6), activations=("gelu_pytorch_tanh",), shifted=True),
    "phi3": Architecture(MODEL_ARCH.PHI3, _phi3, square=True, factors=("longrope",)),
    "gpt2": Architecture(
        MODEL_ARCH.GPT2, _gpt2, activations=("gelu_new", "gelu_pytorch_tanh"), transposed=True, prefix="transformer."
    ),
}


def find_architecture(config: Any, source: str) -> Architecture:
    """The row of a transformers config. Raises UsageError, naming `source`, for a family that has none."""
    family = str(config.model_type)
    row = ARCHITECTURES.get(family)
    if row is None:
        raise UsageError(
            "{source} is of the family {family!r}, which whet does not write as .gguf. Families it writes: {known}.",
            source=source,
            family=family,
            known=", ".join(ARCHITECTURES),
        )
    act = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    act = getattr(config, "hidden_activation", None) or getattr(config, "activation_function", None) or act
    if act not in row.activations:
        raise _not(
            source, row, "its activation is {act}, llama.cpp computes {theirs}", act=act, theirs=row.activations[0]
        )
    if row.square and head_dim(config) * config.num_attention_heads != config.hidden_size:
        raise _not(source, row, "its heads are not as wide together as its hidden states")
    if row.always_tied and not config.tie_word_embeddings:
        raise _not(source, row, "its head is a tensor of its own, and llama.cpp reads the embedding instead")
    return row


def settings_of(config: Any, row: Architecture, source: str) -> tuple[Settings, dict[str, Tensor]]:
    """The file's settings with the architecture's prefix, and tensors that are computed from the config."""
    try:
        found = row.settings(config)
        rope, tensors = _rope(config, row) if "rope.dimension_count" in found else ({}, {})
    except UsageError as error:
        raise _not(source, row, "{why}", why=error.message) from error
    return {f"{row.name}.{key}": value for key, value in (found | rope).items()}, tensors


def tensor_name(row: Architecture, blocks: int) -> Callable[[str], str | None]:
    """A function from transformers' name of a stored tensor to the file's, None for one the architecture has not."""
    names = gguf.get_tensor_name_map(row.arch, blocks)

    def find(name: str) -> str | None:
        full = name if not row.prefix or name.startswith((row.prefix, "lm_head")) else row.prefix + name
        return names.get_name(full, try_suffixes=(".weight", ".bias"))

    return find


# An expert's linear in a block: block number, expert number, and which of the three it is.
EXPERT = re.compile(r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.weight")
EXPERT_PARTS = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}


def interleaved(rows: int, heads: int) -> Tensor:
    """Where rows of q or k go: transformers rotates the halves of a head, llama.cpp's `llama` neighbouring rows."""
    return torch.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


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


def _rope(config: Any, row: Architecture) -> tuple[Settings, dict[str, Tensor]]:
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
    if kind == "llama3" and kind in row.factors:
        scaled, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
        width = 2 * len(scaled)
        plain = settings["rope.freq_base"] ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
        return settings, {"rope_freqs.weight": plain / scaled}
    if kind == "longrope" and kind in row.factors:
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
    if kind != "default":
        raise UsageError("its rotary frequencies are scaled by {type!r}, which whet does not write", type=kind)
    return settings, {}


def _yarn(said: Mapping[str, Any], config: Any) -> Settings:
    """YaRN's frequencies (arXiv:2309.00071), which llama.cpp computes itself; refuses what it computes otherwise."""
    if not said.get("truncate", True):
        raise UsageError("its YaRN frequencies change between two channels (truncate is false), llama.cpp's at one")
    if (said.get("beta_fast") or 32, said.get("beta_slow") or 1) != (32, 1):
        raise UsageError("its YaRN has beta_fast and beta_slow of its own, llama.cpp takes 32 and 1 in this family")
    before = said.get("original_max_position_embeddings") or config.max_position_embeddings
    factor = float(said.get("factor") or config.max_position_embeddings / before)
    _, strength = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": int(before),
        # llama.cpp multiplies cosines and sines by what the paper recommends, and by this
        "rope.scaling.attn_factor": float(strength) / (1 + 0.1 * math.log(factor)),
    }


def _not(source: str, row: Architecture, template: str, /, **values: Any) -> UsageError:
    return UsageError(
        "{source} cannot be written as a .gguf of the architecture {name}: {why}. Use another runtime (--for "
        "transformers).",
        source=source,
        name=row.name,
        why=Message(template, **values),
    )
