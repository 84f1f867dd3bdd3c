"""An encoder (BERT and its smaller ones) read off its folder and written into a graph: hidden states of every token.

Every text is of type 0, as a single one is; what the pooler or another head makes of the states is not in the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from whet.anatomy import Anatomy
from whet.errors import UsageError
from whet.formats.gguf.source import text_model
from whet.formats.graphs.graph import ACTIVATIONS, Attention, Graph
from whet.formats.graphs.weights import Weights
from whet.targets import Target

# By family: what its norms after attention and after the feed-forward are called in a block.
ENCODERS = {
    "bert": ("attention.output.LayerNorm", "output.LayerNorm"),
    "distilbert": ("sa_layer_norm", "output_layer_norm"),
}
_USUAL = 1e-12  # of norms, where the config has no such entry


@dataclass(frozen=True)
class Encoder:
    """All that the story needs. stored: the names of tensors by what the model calls them."""

    weights: Weights
    parts: Anatomy
    config: Any
    activation: str
    epsilon: float
    heads: int
    norms: tuple[str, str]
    stored: dict[str, str]
    ropes: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def vector(self, name: str) -> Tensor:
        """A norm or a bias by its name in the model."""
        found = self.weights.vector(self.stored[name])
        assert found is not None
        return found


def read_encoder(weights: Weights, target: Target) -> Encoder:
    """The encoder that `weights` make up. Raises UsageError for one that answers more than hidden states."""
    checkpoint = weights.checkpoint
    config, parts = text_model(checkpoint).config, weights.parts()
    activation = getattr(config, "hidden_act", None) or config.activation
    if parts.task != "states" or activation not in ACTIVATIONS:
        raise UsageError(
            "{source} ({family}) cannot be written for {target}: of encoders whet writes base models, which give "
            "hidden "
            "states, and this one gives {task} ({act}). Save its base model by itself (AutoModel) and give that.",
            source=checkpoint.path,
            family=config.model_type,
            target=target.name,
            task=parts.task,
            act=activation,
        )
    return Encoder(
        weights,
        parts,
        config,
        activation,
        float(getattr(config, "layer_norm_eps", _USUAL)),
        int(config.num_attention_heads),
        ENCODERS[config.model_type],
        {parts.name(name): name for name in weights.shapes},
    )


def write_encoder(graph: Graph, model: Encoder) -> None:
    """Embedding with learned positions, blocks; hidden states of every token."""
    parts, weights = model.parts, model.weights
    around = parts.embedding.address.rpartition(".")[0]
    x = graph.embed(weights.matrix(parts.embedding.address), parts.embedding.address)
    positions = model.vector(f"{around}.position_embeddings.weight")
    if (types := f"{around}.token_type_embeddings.weight") in model.stored:
        positions = positions + model.vector(types)[0]
    x = _norm(graph, model, graph.shift(x, positions, f"{around}.positions"), f"{around}.LayerNorm")
    for index in range(len(parts.blocks)):
        x = _block(graph, model, index, x)
    graph.answer(x, "last_hidden_state")


def _block(graph: Graph, model: Encoder, index: int, x: Any) -> Any:
    """Attention and feed-forward, each added to the stream, which is normed then."""
    prefix, at = model.parts.prefixes[index], {linear.role: linear for linear in model.parts.blocks[index]}

    def linear(x: Any, role: str) -> Any:
        address = at[role].address
        return graph.linear(x, model.weights.matrix(address), address, model.weights.vector(f"{address}.bias"))

    if "q" in at:
        width = at["q"].shape[0] // model.heads
        how = Attention(index, model.heads, model.heads, width, width**-0.5)
        q, k, v = (linear(x, role) for role in "qkv")
        y = graph.attend_both_ways(q, k, v, how)
        x = _norm(graph, model, graph.add(x, linear(y, "o")), prefix + model.norms[0])
    if "up" in at:
        y = linear(graph.activate(linear(x, "up"), model.activation), "down")
        x = _norm(graph, model, graph.add(x, y), prefix + model.norms[1])
    return x


def _norm(graph: Graph, model: Encoder, x: Any, name: str) -> Any:
    return graph.layer_norm(x, model.vector(f"{name}.weight"), model.vector(f"{name}.bias"), model.epsilon)
