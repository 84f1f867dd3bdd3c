"""Architectures as llama.cpp knows them: one row a family, with what has to be done to its tensors and settings.

Names of tensors come from the `gguf` package's own maps. What a row cannot express exactly is refused by name:
llama.cpp reads a wrong setting without a word and computes something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES
from torch import Tensor

from whet.errors import UsageError
from whet.formats.gguf import differing, routed
from whet.formats.gguf import settings as of
from whet.formats.gguf.settings import Settings, head_dim, kv_heads, window_of
from whet.messages import Message


@dataclass(frozen=True)
class Architecture:
    """A family in llama.cpp.

    arch: its name there. settings: of a transformers config, without the architecture's prefix. activations: the ones
    its code computes; near: such that it computes something close to. order: where the rows of a tensor (`attn_q`) go,
    None where they stay. shifted: norms are stored as one plus the weight. transposed: linears of blocks are stored
    `[in, out]` by transformers. always_tied: it has no head of its own. square: heads times their width must be the
    hidden width. factors: the tensor that takes rotary frequencies, by their kind. unbiased: config entries of
    biases that its code does not read. prefix: what some checkpoints leave out before the names of tensors. beside:
    settings that the config of the model around a text model tells.
    """

    arch: MODEL_ARCH
    settings: Callable[[Any], Settings]
    activations: tuple[str, ...] = ("silu",)
    near: tuple[str, ...] = ()
    order: Callable[[Any, str, int], Tensor | None] | None = None
    shifted: bool = False
    transposed: bool = False
    always_tied: bool = False
    square: bool = False
    factors: tuple[str, ...] = ()
    unbiased: tuple[str, ...] = ()
    prefix: str = ""
    beside: Callable[[Any], Settings] | None = None
    renames: tuple[tuple[str, str], ...] = ((r"e_score_correction_bias$", "e_score_correction.bias"),)
    gate_and_up: tuple[str, str] = ("first", "second")
    turned_experts: bool = False
    computed: Callable[[str], Callable[[Tensor], Tensor] | None] | None = None
    split: Callable[[Any, str, int], dict[str, Tensor] | None] | None = None
    unshifted: tuple[str, ...] = ()
    yarn: Callable[[Any, Settings], Settings] | None = None
    remark: Message | None = None

    @property
    def name(self) -> str:
        """What the file calls it."""
        return MODEL_ARCH_NAMES[self.arch]


def interleaved(rows: int, heads: int) -> Tensor:
    """Where rows of q or k go: transformers rotates the halves of a head, llama.cpp's `llama` neighbouring rows."""
    return torch.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def halves(config: Any, tensor: str, rows: int) -> Tensor | None:
    """q and k, whose halves transformers rotates."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": kv_heads(config)}.get(tensor)
    return None if heads is None else interleaved(rows, heads)


def halves_of_each(config: Any, tensor: str, rows: int) -> Tensor | None:
    """The same where blocks have several numbers of heads."""
    return interleaved(rows, rows // head_dim(config)) if tensor in ("attn_q", "attn_k") else None


def by_head(config: Any, tensor: str, rows: int) -> Tensor | None:
    """q, k and v, which alternate head by head and lie one after the other in a file."""
    if tensor != "attn_qkv":
        return None
    return torch.arange(rows).reshape(config.num_attention_heads, 3, -1).swapaxes(0, 1).reshape(-1)


def grouped(config: Any, tensor: str, rows: int) -> Tensor | None:
    """Falcon's: several heads of q, then k and v, group by group."""
    if tensor != "attn_qkv":
        return None
    groups = of.falcon_heads(config)
    where = torch.arange(rows).reshape(groups, config.num_attention_heads // groups + 2, -1)
    return torch.cat([where[:, :-2].flatten(), where[:, -2].flatten(), where[:, -1].flatten()])


_GELU = ("gelu_new", "gelu_pytorch_tanh")
_LLAMA = Architecture(MODEL_ARCH.LLAMA, of.rotary, order=halves, factors=("llama3",))
_OLMO = Architecture(MODEL_ARCH.OLMO2, of.olmo, square=True, unbiased=("attention_bias",))

ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": Architecture(MODEL_ARCH.LLAMA, of.mixtral, order=halves),
    "qwen2": Architecture(MODEL_ARCH.QWEN2, of.rotary, square=True),
    "qwen3": Architecture(MODEL_ARCH.QWEN3, of.rotary, unbiased=("attention_bias",)),
    "qwen2_vl_text": Architecture(MODEL_ARCH.QWEN2VL, of.three_axes, square=True),
    "qwen2_5_vl_text": Architecture(MODEL_ARCH.QWEN2VL, of.three_axes, square=True),
    "qwen3_vl_text": Architecture(
        MODEL_ARCH.QWEN3VL, of.interleaved_axes, unbiased=("attention_bias",), beside=of.deep_images
    ),
    "qwen3_moe": Architecture(MODEL_ARCH.QWEN3MOE, of.qwen3_moe),
    "gemma2": Architecture(
        MODEL_ARCH.GEMMA2, of.gemma(2), activations=("gelu_pytorch_tanh",), shifted=True, always_tied=True
    ),
    "gemma3_text": Architecture(MODEL_ARCH.GEMMA3, of.gemma(6), activations=("gelu_pytorch_tanh",), shifted=True),
    "phi3": Architecture(MODEL_ARCH.PHI3, of.phi3, square=True, factors=("longrope",)),
    "gpt2": Architecture(MODEL_ARCH.GPT2, of.gpt2, activations=_GELU, transposed=True, prefix="transformer."),
    "exaone4": Architecture(MODEL_ARCH.EXAONE4, of.exaone4, square=True, factors=("llama3",)),
    "smollm3": Architecture(MODEL_ARCH.SMOLLM3, of.smollm3, order=halves, unbiased=("attention_bias", "mlp_bias")),
    "olmo2": _OLMO,
    "olmo3": _OLMO,
    "granite": Architecture(MODEL_ARCH.GRANITE, of.granite, order=halves),
    "stablelm": Architecture(MODEL_ARCH.STABLELM, of.stablelm, square=True),
    "starcoder2": Architecture(MODEL_ARCH.STARCODER2, of.starcoder2, activations=_GELU, square=True),
    "glm4": Architecture(MODEL_ARCH.GLM4, of.rotary),
    "cohere2": Architecture(
        MODEL_ARCH.COHERE2, of.cohere2, always_tied=True, square=True, unbiased=("attention_bias",)
    ),
    "seed_oss": Architecture(MODEL_ARCH.SEED_OSS, of.rotary, unbiased=("attention_out_bias", "mlp_bias")),
    "ernie4_5": Architecture(MODEL_ARCH.ERNIE4_5, of.rotary, unbiased=("use_bias",)),
    "hunyuan_v1_dense": Architecture(MODEL_ARCH.HUNYUAN_DENSE, of.rotary, unbiased=("attention_bias",)),
    "falcon": Architecture(MODEL_ARCH.FALCON, of.falcon, activations=_GELU, near=("gelu",), order=grouped, square=True),
    "gpt_neox": Architecture(
        MODEL_ARCH.GPTNEOX, of.gpt_neox, activations=_GELU, near=("gelu",), order=by_head, square=True
    ),
    "qwen2_moe": Architecture(MODEL_ARCH.QWEN2MOE, of.qwen2_moe, square=True),
    "olmoe": Architecture(MODEL_ARCH.OLMOE, routed.olmoe, square=True, unbiased=("attention_bias",)),
    "gpt_oss": Architecture(
        MODEL_ARCH.GPT_OSS,
        routed.gpt_oss,
        renames=((r"\.sinks$", ".sinks.weight"),),
        gate_and_up=("even", "odd"),
        turned_experts=True,
        remark=routed.NEARLY_YARN,
    ),
    "deepseek_v2": Architecture(MODEL_ARCH.DEEPSEEK2, routed.deepseek_v2, yarn=routed.latent_yarn),
    "deepseek_v3": Architecture(MODEL_ARCH.DEEPSEEK2, routed.deepseek_v3, yarn=routed.latent_yarn),
    "glm4_moe": Architecture(MODEL_ARCH.GLM4_MOE, routed.glm4_moe),
    "dots1": Architecture(MODEL_ARCH.DOTS1, routed.dots),
    "granitemoe": Architecture(MODEL_ARCH.GRANITE_MOE, routed.granite_moe, order=halves),
    "ernie4_5_moe": Architecture(MODEL_ARCH.ERNIE4_5_MOE, routed.ernie_moe),
    "hunyuan_v1_moe": Architecture(MODEL_ARCH.HUNYUAN_MOE, routed.hunyuan_moe, unbiased=("attention_bias",)),
    "minimax_m2": Architecture(MODEL_ARCH.MINIMAXM2, routed.minimax_m2),
    "lfm2": Architecture(MODEL_ARCH.LFM2, routed.lfm2, activations=("",), computed=routed.short_convolution),
    "lfm2_moe": Architecture(
        MODEL_ARCH.LFM2MOE,
        routed.lfm2_moe,
        activations=("",),
        computed=routed.short_convolution,
        renames=((r"expert_bias$", "expert_bias.bias"),),
    ),
    "qwen3_next": Architecture(
        MODEL_ARCH.QWEN3NEXT,
        routed.qwen3_next,
        shifted=True,
        unshifted=("ssm_norm.weight",),
        renames=((r"\.dt_bias$", ".dt_proj.bias"),),
        computed=routed.delta_rule,
        split=routed.keys_and_gates,
    ),
    "llama4_text": Architecture(MODEL_ARCH.LLAMA4, routed.llama4, turned_experts=True, factors=("llama3",)),
    "gemma": Architecture(
        MODEL_ARCH.GEMMA,
        of.rotary,
        activations=("gelu_pytorch_tanh",),
        shifted=True,
        always_tied=True,
        beside=routed.no_prefix,
    ),
    "qwen3_vl_moe_text": Architecture(MODEL_ARCH.QWEN3VLMOE, routed.qwen3_vl_moe, beside=of.deep_images),
    "phi": Architecture(MODEL_ARCH.PHI2, of.phi, activations=_GELU, square=True),
    "olmo": Architecture(MODEL_ARCH.OLMO, of.olmo_first, order=halves, square=True),
    "cohere": Architecture(
        MODEL_ARCH.COMMAND_R, of.cohere, always_tied=True, square=True, unbiased=("attention_bias",)
    ),
    "arcee": Architecture(MODEL_ARCH.ARCEE, of.rotary, activations=("relu2",), order=halves, factors=("llama3",)),
    "nemotron": Architecture(MODEL_ARCH.NEMOTRON, of.nemotron, activations=("relu2",), shifted=True),
    "glm": Architecture(MODEL_ARCH.CHATGLM, of.rotary),
}

# What models are whose blocks differ in shape. (`llama` has one width of a feed-forward for all blocks.)
_DECI = Architecture(MODEL_ARCH.DECI, of.rotary, order=halves_of_each, factors=("llama3",))
UNLIKE = {"llama": _DECI, "mistral": _DECI}


def _unlike(config: Any, source: str) -> Architecture:
    """The row of a model whose blocks differ. Raises UsageError, naming `source`, for a family that has none."""
    family = str(config.model_type)
    if family not in UNLIKE:
        raise UsageError(
            "{source} has blocks that differ in shape, and llama.cpp knows no such {family}: it does of {known}. Use "
            "transformers, or prune without --shapes free.",
            source=source,
            family=family,
            known=", ".join(UNLIKE),
        )
    return UNLIKE[family]


def find_architecture(config: Any, source: str, layers: Mapping[int, Any] | None = None) -> Architecture:
    """The row of a transformers config, of which blocks may differ by the entries that are their own (`layers`). Raises
    UsageError, naming `source`, for a family that has none."""
    family = str(config.model_type)
    row = ARCHITECTURES.get(family)
    if row is None:
        raise UsageError(
            "{source} is of the family {family!r}, which whet does not write as .gguf. Families it writes: {known}.",
            source=source,
            family=family,
            known=", ".join(ARCHITECTURES),
        )
    act = activation(config)
    if act not in (*row.activations, *row.near):
        raise _not(
            source, row, "its activation is {act}, llama.cpp computes {theirs}", act=act, theirs=row.activations[0]
        )
    if row.square and head_dim(config) * config.num_attention_heads != config.hidden_size:
        raise _not(source, row, "its heads are not as wide together as its hidden states")
    biases = [name for name in row.unbiased if getattr(config, name, False)]
    if biases:
        raise _not(source, row, "{entry} is true, and llama.cpp does not read those biases", entry=biases[0])
    if row.always_tied and not config.tie_word_embeddings:
        raise _not(source, row, "its head is a tensor of its own, and llama.cpp reads the embedding instead")
    return _unlike(config, source) if layers else row


def settings_of(
    config: Any,
    row: Architecture,
    source: str,
    larger: Any | None = None,
    layers: Mapping[int, Mapping[str, Any]] | None = None,
) -> tuple[Settings, dict[str, Tensor]]:
    """The file's settings with the architecture's prefix, and tensors that are computed from the config. larger: the
    config of the model that the text model is inside of. layers: by block the entries that are its own."""
    try:
        found = row.settings(config)
        if row.beside is not None and larger is not None:
            found |= row.beside(larger)
        rope, tensors = of.rope_settings(config, row.factors) if "rope.dimension_count" in found else ({}, {})
        if row.yarn is not None and rope.get("rope.scaling.type") == "yarn":
            rope = row.yarn(config, rope)
    except UsageError as error:
        raise _not(source, row, "{why}", why=error.message) from error
    if layers:
        found, tensors = found | differing.by_block(config, layers), tensors | differing.of_zeros(config, layers)
    return {f"{row.name}.{key}": value for key, value in (found | rope).items()}, tensors


def tensor_name(row: Architecture, blocks: int) -> Callable[[str], str | None]:
    """A function from transformers' name of a stored tensor to the file's, None for one the architecture has not."""
    names = gguf.get_tensor_name_map(row.arch, blocks)

    def find(name: str) -> str | None:
        for pattern, instead in row.renames:
            name = re.sub(pattern, instead, name)
        full = name if not row.prefix or name.startswith((row.prefix, "lm_head")) else row.prefix + name
        return names.get_name(full, try_suffixes=(".weight", ".bias"))

    return find


# An expert's linear in a block, or a stack of them: block, expert and which of the three it is.
_EXPERT = re.compile(
    r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe|feed_forward)\."
    r"(?:experts\.(?:(\d+)\.)?(\w+?)|(input_linear|output_linear)(?:\.(\d+))?)(\.weight|_bias)?"
)
_EXPERT_PARTS = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}
_OF_TWO, _OF_ONE = ("gate_up_proj", "input_linear"), ("down_proj", "output_linear")


@dataclass(frozen=True)
class Expert:
    """A tensor of experts: their block, which expert (None for all of them, stacked), the `parts` of a feed-forward
    that it has with which of its rows, and whether it is of weights or of biases (`suffix`)."""

    block: int
    number: int | None
    parts: tuple[tuple[str, str], ...]
    suffix: str


def expert_of(own: str, row: Architecture) -> Expert | None:
    """What transformers' name of a tensor says of experts, None where it says nothing."""
    match = _EXPERT.fullmatch(own)
    if match is None:
        return None
    leaf, number = match[3] or match[4], match[2] or match[5]
    if leaf in _OF_TWO:
        parts: tuple[tuple[str, str], ...] = tuple(zip(("gate", "up"), row.gate_and_up, strict=True))
    elif leaf in (*_EXPERT_PARTS, *_OF_ONE):
        parts = ((_EXPERT_PARTS.get(leaf, "down"), "all"),)
    else:
        return None
    suffix = "bias" if match[6] == "_bias" else "weight"
    return Expert(int(match[1]), None if number is None else int(number), parts, suffix)


def rows_of(which: str, count: int) -> Tensor | None:
    """Numbers of the rows that are the `first` or `second` half of `count`, or the `even` or `odd` ones."""
    whole = torch.arange(count)
    rows = {"first": whole[: count // 2], "second": whole[count // 2 :], "even": whole[::2], "odd": whole[1::2]}
    return rows.get(which)


def activation(config: Any) -> str:
    """What stands in a model's feed-forward."""
    names = ("hidden_activation", "activation_function", "activation", "hidden_act")
    return next((str(getattr(config, name)) for name in names if getattr(config, name, None)), "")


def remarks(config: Any, row: Architecture, settings: Settings, tensors: Mapping[str, Any]) -> list[Message]:
    """What a file of the model does otherwise than the model. tensors: the file's, by name."""
    found = [] if row.remark is None else [row.remark]
    window = 0 if f"{row.name}.attention.sliding_window" in settings else window_of(config)
    if 0 < window < settings[f"{row.name}.context_length"]:
        found.append(
            Message(
                "llama.cpp has no attention window in this family: in texts of more than {window} tokens it looks back "
                "further than the model does",
                window=window,
            )
        )
    if "rope_factors_long.weight" in tensors:
        found.append(
            Message(
                "llama.cpp takes the rotary frequencies for long text whenever it is opened with a longer context "
                "than the model's first one, transformers when the text is longer"
            )
        )
    if activation(config) in row.near:
        found.append(
            Message(
                "llama.cpp computes {act} by its tanh approximation in this family: logits differ a little",
                act=activation(config),
            )
        )
    return found


def _not(source: str, row: Architecture, template: str, /, **values: Any) -> UsageError:
    return UsageError(
        "{source} cannot be written as a .gguf of the architecture {name}: {why}. Use another runtime (--for "
        "transformers).",
        source=source,
        name=row.name,
        why=Message(template, **values),
    )
