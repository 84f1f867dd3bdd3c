"""`genai_config.json`: what makes a folder with a model.onnx one that onnxruntime-genai reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whet.formats.graphs.decoder import Decoder
from whet.formats.graphs.onnx import MODEL


def genai_config(model: Decoder, generation: Mapping[str, Any]) -> dict[str, Any]:
    """The whole of it. generation: the folder's generation_config.json, or nothing."""
    config, context = model.config, model.context

    def token(name: str) -> Any:
        return generation.get(f"{name}_token_id", getattr(config, f"{name}_token_id", None))

    first = next(one for one in model.attention if one is not None)
    ends = token("eos")
    end = ends[0] if isinstance(ends, list) else ends
    tokens = {"bos_token_id": token("bos"), "eos_token_id": ends}
    tokens["pad_token_id"] = token("pad") if token("pad") is not None else end
    return {
        "model": {
            **{name: value for name, value in tokens.items() if value is not None},
            "context_length": context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": MODEL,
                "head_size": first.width,
                "hidden_size": int(config.hidden_size),
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "num_attention_heads": first.heads,
                "num_hidden_layers": len(model.attention),
                "num_key_value_heads": first.kv_heads,
            },
            "type": config.model_type,
            "vocab_size": int(config.vocab_size),
        },
        "search": {
            "do_sample": bool(generation.get("do_sample", False)),
            "max_length": context,
            "min_length": 0,
            "past_present_share_buffer": False,
            "temperature": float(generation.get("temperature") or 1.0),
            "top_k": int(generation.get("top_k") or 1),
            "top_p": float(generation.get("top_p") or 1.0),
        },
    }
