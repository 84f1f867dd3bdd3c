"""Encoders, and models that have one: rows of the table of families (`whet.anatomy.families`)."""

from __future__ import annotations

from whet.anatomy.family import Family, Fold, LinearName
from whet.messages import Message

_AFTER = Message("the norm before it is the residual stream too")
# Why a residual stream cannot be turned.
CENTRED = Message("its LayerNorms take the mean over channels away, which is another one once they are turned")
_SHARED_STACKS = Message(
    "two stacks and the position biases between them read one embedding, which whet has no table of"
)


def _bert_names(block: dict[str, str]) -> tuple[LinearName, ...]:
    return (
        LinearName(block["q"], "q", "attention input"),
        LinearName(block["k"], "k", "attention input"),
        LinearName(block["v"], "v", "attention input"),
        LinearName(block["o"], "o", "attention output"),
        LinearName(block["up"], "up", "ffn input"),
        LinearName(block["down"], "down", "ffn middle"),
    )


def _t5_ffn(layer: int, gated: bool) -> tuple[LinearName, ...]:
    """The feed-forward of a T5 block, which is its last layer, and before it in a decoder what reads the encoder."""
    ffn, cross = f"layer.{layer}.DenseReluDense", "layer.1.EncDecAttention"
    names = [LinearName(f"{ffn}.wi", "up", "ffn input")]
    if gated:
        names = [LinearName(f"{ffn}.wi_0", "gate", "ffn input"), LinearName(f"{ffn}.wi_1", "up", "ffn input")]
    names.append(LinearName(f"{ffn}.wo", "down", "ffn middle"))
    if layer == 2:
        names += [LinearName(f"{cross}.q", "cross q", "cross input")]
        names += [LinearName(f"{cross}.{part}", f"cross {part}", "encoder output") for part in "kv"]
        names += [LinearName(f"{cross}.o", "cross o", "cross output")]
    return tuple(names)


ENCODERS: dict[str, Family] = {
    "bert": Family(
        ("BertForMaskedLM", "BertForSequenceClassification"),
        _bert_names(
            {
                "q": "attention.self.query",
                "k": "attention.self.key",
                "v": "attention.self.value",
                "o": "attention.output.dense",
                "up": "intermediate.dense",
                "down": "output.dense",
            }
        ),
        "BERT",
        blocks="bert.encoder.layer",
        embedding="bert.embeddings.word_embeddings",
        norm="",
        head="cls.predictions.decoder",
        beside=("bert.embeddings", "bert.pooler", "cls", "classifier"),
        ties=True,
        renames=((r"\.gamma$", ".weight"), (r"\.beta$", ".bias")),
        folds=(
            Fold(("attention input", "ffn input"), why=_AFTER),
            Fold(("attention output",), by="v", heads="num_attention_heads"),
            Fold(("ffn middle",), by="up", act="hidden_act", usual="gelu"),
        ),
        still=CENTRED,
    ),
    "distilbert": Family(
        ("DistilBertForMaskedLM", "DistilBertForSequenceClassification"),
        _bert_names(
            {
                "q": "attention.q_lin",
                "k": "attention.k_lin",
                "v": "attention.v_lin",
                "o": "attention.out_lin",
                "up": "ffn.lin1",
                "down": "ffn.lin2",
            }
        ),
        "DistilBERT",
        blocks="distilbert.transformer.layer",
        embedding="distilbert.embeddings.word_embeddings",
        norm="",
        head="vocab_projector",
        beside=(
            "distilbert.embeddings",
            "vocab_transform",
            "vocab_layer_norm",
            "vocab_projector",
            "pre_classifier",
            "classifier",
        ),
        count=("n_layers",),
        width="hidden_dim",
        ties=True,
        folds=(
            Fold(("attention input", "ffn input"), why=_AFTER),
            Fold(("attention output",), by="v", heads="n_heads"),
            Fold(("ffn middle",), by="up", act="activation", usual="gelu"),
        ),
        still=CENTRED,
    ),
    "t5": Family(
        ("T5ForConditionalGeneration",),
        tuple(
            LinearName(f"layer.0.SelfAttention.{part}", part, "attention output" if part == "o" else "attention input")
            for part in "qkvo"
        ),
        "T5",
        blocks=("encoder.block", "decoder.block"),
        embedding="shared",
        norm="decoder.final_layer_norm",
        alternatives=tuple(_t5_ffn(layer, gated) for layer in (2, 1) for gated in (True, False)),
        beside=("encoder.final_layer_norm",),
        kept=("layer.0.SelfAttention.relative_attention_bias",),
        count=("num_layers", "num_decoder_layers"),
        ties=True,
        shared=("encoder.embed_tokens", "decoder.embed_tokens"),
        packed=Message("transformers makes up the weights of a T5 before it loads them, and packed linears have none"),
        returns=3,
        folds=(
            Fold(("attention input",), norm=("layer.0.layer_norm",)),
            Fold(("ffn input",), norm=("layer.2.layer_norm", "layer.1.layer_norm")),
            Fold(("cross input",), norm=("layer.1.layer_norm",)),
            Fold(("encoder output",), why=Message("every block of the decoder reads it")),
            Fold(("attention output",), by="v", heads="num_heads"),
            Fold(("cross output",), by="cross v", heads="num_heads"),
            Fold(("ffn middle",), by="up", act="feed_forward_proj"),
        ),
        still=_SHARED_STACKS,
    ),
}
