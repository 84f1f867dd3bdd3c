"""A model that continues text, read off its folder and written into a graph: the story of a block, once for every
runtime.

What a block has is told by its tensors (norms after its halves, norms of heads, biases); numbers that transformers
computes from the config (angles, the scale of scores) are taken from its own modules. What a graph does not express is
refused by name: computed otherwise, it would be another model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from whet.anatomy import Anatomy
from whet.checkpoint.loading import empty_model
from whet.errors import UsageError
from whet.formats.gguf.source import text_model
from whet.formats.graphs.graph import ACTIVATIONS, Attention, Graph
from whet.formats.graphs.weights import Weights
from whet.messages import Message
from whet.targets import Target

_ROPES = ("default", "linear", "llama3", "yarn")  # whose angles do not depend on how long a text is
_SLIDING, _FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Family:
    """A family of decoders. shifted: norms are stored as one plus the weight."""

    shifted: bool = False


DECODERS: dict[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite"), Family()),
    **dict.fromkeys(("gemma2", "gemma3_text"), Family(shifted=True)),
}


@dataclass(frozen=True)
class Decoder:
    """All that the story needs. attention: by block, None where a pruned one has none. ropes: cosines and sines
    `[positions, width / 2]` by name. embed_scale, residual_scale, logit_scale: factors, 1 in most families."""

    weights: Weights
    parts: Anatomy
    config: Any
    activation: str
    epsilon: float
    attention: list[Attention | None]
    ropes: dict[str, tuple[Tensor, Tensor]]
    norm_adds: float = 0.0
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_cap: float = 0.0
    notes: list[Message] = field(default_factory=list)

    @property
    def context(self) -> int:
        """The most tokens of a sequence."""
        return int(self.config.max_position_embeddings)


def read_decoder(weights: Weights, target: Target) -> Decoder:
    """The decoder that `weights` make up. Raises UsageError for what its graph for `target` cannot express."""
    checkpoint = weights.checkpoint
    config, parts = text_model(checkpoint).config, weights.parts()

    def refuse(template: str, /, **values: Any) -> UsageError:
        return UsageError(
            "{source} ({family}) cannot be written for {target}: {why}.",
            source=checkpoint.path,
            family=config.model_type,
            target=target.name,
            why=Message(template, **values),
        )

    row = DECODERS[config.model_type]
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation not in ACTIVATIONS:
        raise refuse("its activation is {act}, which is not known", act=activation)
    model = empty_model(checkpoint, torch.float32)
    inside: Any = model.get_decoder()  # type: ignore[no-untyped-call]
    attention = [_attention(i, inside.layers[i], weights, parts, config) for i in range(len(parts.blocks))]
    ropes = _angles(inside.rotary_emb, config, {one.rope for one in attention if one is not None}, refuse)
    for one in attention:
        if one is None:
            continue
        if one.width % target.head_multiple:
            raise refuse(
                "its heads are {width} wide, and {target} takes multiples of {multiple}",
                width=one.width,
                multiple=target.head_multiple,
                target=target.name,
            )
    return Decoder(
        weights,
        parts,
        config,
        activation,
        float(config.rms_norm_eps),
        attention,
        ropes,
        norm_adds=float(row.shifted),
        embed_scale=float(
            getattr(inside.embed_tokens, "scalar_embed_scale", 0) or getattr(config, "embedding_multiplier", 1.0)
        ),
        residual_scale=float(getattr(config, "residual_multiplier", 1.0)),
        logit_scale=1 / float(getattr(config, "logits_scaling", 1.0)),
        logit_cap=float(getattr(config, "final_logit_softcapping", None) or 0),
    )


def _attention(index: int, layer: Any, weights: Weights, parts: Anatomy, config: Any) -> Attention | None:
    """What block `index` does; heads are counted by its tensors, since those of a pruned block are its own."""
    rows = {linear.role: linear.shape[0] for linear in parts.blocks[index]}
    if "q" not in rows:
        return None
    module = layer.self_attn
    kinds = getattr(config, "layer_types", None)
    kind = kinds[index] if kinds else _FULL
    sliding = kind == _SLIDING if kinds else True
    window = int(getattr(config, "sliding_window", None) or 0) if sliding else 0
    roped = getattr(config, "no_rope_layers", None)
    rope = None if roped is not None and not roped[index] else kind
    return Attention(
        index,
        rows["q"] // module.head_dim,
        rows["k"] // module.head_dim,
        module.head_dim,
        float(module.scaling),
        rope,
        window,
        float(getattr(config, "attn_logit_softcapping", None) or 0),
    )


def _angles(
    module: Any, config: Any, names: set[str | None], refuse: Callable[..., UsageError]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Cosines and sines of every position, as the module of transformers computes them."""
    real, found = type(module)(config), dict[str, tuple[Tensor, Tensor]]()
    at = torch.arange(int(config.max_position_embeddings))[None]
    for name in sorted(name for name in names if name is not None):
        said = config.rope_parameters
        kind = said.get(name, said).get("rope_type", "default")
        if kind not in _ROPES:
            raise refuse("its rotary angles ({kind}) change with the length of a text", kind=kind)
        by_type = {"layer_type": name} if hasattr(real, f"{name}_inv_freq") else {}
        with torch.no_grad():
            cos, sin = real(torch.zeros(1), at, **by_type)
        half = cos.shape[-1] // 2
        if cos.shape[-1] != _head_dim(config) or not torch.equal(cos[..., :half], cos[..., half:]):
            raise refuse("it turns a part of each head only")
        found[name] = cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()
    return found


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def write_decoder(graph: Graph, model: Decoder) -> None:
    """Embedding, blocks, head; logits of every token given."""
    parts, weights = model.parts, model.weights
    for name, (cos, sin) in model.ropes.items():
        graph.angles(name, cos, sin)
    x = graph.embed(weights.matrix(parts.embedding.address), parts.embedding.address)
    if model.embed_scale != 1:
        x = graph.multiply(x, model.embed_scale)
    for index in range(len(parts.blocks)):
        x = _block(graph, model, index, x)
    x = _norm(graph, model, x, f"{parts.family.norm}.weight")
    head = parts.embedding if parts.head is None else parts.head
    x = graph.linear(x, None if parts.head is None else weights.matrix(head.address), head.address)
    if model.logit_scale != 1:
        x = graph.multiply(x, model.logit_scale)
    if model.logit_cap:
        x = graph.softcap(x, model.logit_cap)
    graph.answer(x, "logits")


def _block(graph: Graph, model: Decoder, index: int, x: Any) -> Any:
    """Attention, then the feed-forward, each between its norms and added to the stream."""
    prefix, at = model.parts.prefixes[index], {linear.role: linear.address for linear in model.parts.blocks[index]}
    wrapped = f"{prefix}pre_feedforward_layernorm.weight" in model.weights.shapes
    how = model.attention[index]

    def linear(x: Any, role: str) -> Any:
        return graph.linear(x, model.weights.matrix(at[role]), at[role], model.weights.vector(f"{at[role]}.bias"))

    def add(x: Any, y: Any, after: str) -> Any:
        if wrapped:
            y = _norm(graph, model, y, f"{prefix}{after}.weight")
        return graph.add(x, y if model.residual_scale == 1 else graph.multiply(y, model.residual_scale))

    if how is not None:
        y = _norm(graph, model, x, f"{prefix}input_layernorm.weight")
        q, k, v = (linear(y, role) for role in "qkv")
        if f"{prefix}self_attn.q_norm.weight" in model.weights.shapes:
            q = _norm(graph, model, q, f"{prefix}self_attn.q_norm.weight", how.heads)
            k = _norm(graph, model, k, f"{prefix}self_attn.k_norm.weight", how.kv_heads)
        x = add(x, linear(graph.attend(q, k, v, how), "o"), "post_attention_layernorm")
    if "up" in at:
        before = "pre_feedforward_layernorm" if wrapped else "post_attention_layernorm"
        y = _norm(graph, model, x, f"{prefix}{before}.weight")
        y = graph.multiply(graph.activate(linear(y, "gate"), model.activation), linear(y, "up"))
        x = add(x, linear(y, "down"), "post_feedforward_layernorm")
    return x


def _norm(graph: Graph, model: Decoder, x: Any, name: str, heads: int = 0) -> Any:
    weight = model.weights.vector(name)
    assert weight is not None
    return graph.rms_norm(x, weight + model.norm_adds, model.epsilon, heads)
