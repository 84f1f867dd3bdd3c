"""Tiny random models that read images or sounds beside text, and what they are given with an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig
from transformers.models.auto import modeling_auto

from tiny_models import tokenizer

IMAGE = 260  # the token that stands for a part of an image
_TEXT = {
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.08,
}
_THREE_AXES = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}}
_INTERLEAVED = {**_THREE_AXES["rope_parameters"], "mrope_interleaved": True}
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_QWEN_TOWER = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 64,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 16,
    "fullatt_block_indexes": [1],
}
_DEEP_TOWER = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 64,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
_TOKENS = {"image_token_id": 260, "video_token_id": 261, "vision_start_token_id": 262, "vision_end_token_id": 263}


def text(kind: str, **more: Any) -> dict[str, Any]:
    """The config of text of the family `kind`."""
    return {"model_type": kind, **_TEXT, **more}


MODELS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": text(
            "gemma3_text",
            query_pre_attn_scalar=16,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention"],
        ),
        "vision_config": dict(model_type="siglip_vision_model", **_TOWER),
        "mm_tokens_per_image": 4,
        "image_token_index": 260,
        "image_token_id": 260,
        "boi_token_index": 261,
        "eoi_token_index": 262,
    },
    "llava": {
        "text_config": text("llama"),
        "vision_config": dict(model_type="clip_vision_model", **_TOWER),
        "image_token_index": 260,
        "vision_feature_layer": -2,
    },
    "llava_next": {
        "text_config": text("mistral"),
        "vision_config": dict(model_type="clip_vision_model", **_TOWER),
        "image_token_index": 260,
        "image_grid_pinpoints": [[16, 16]],
    },
    "llava_onevision": {
        "text_config": text("qwen2"),
        "vision_config": dict(model_type="siglip_vision_model", **_TOWER),
        "image_token_index": 260,
        "video_token_index": 261,
        "image_grid_pinpoints": [[16, 16]],
    },
    "vipllava": {
        "text_config": text("llama"),
        "vision_config": dict(model_type="clip_vision_model", **_TOWER),
        "image_token_index": 260,
        "vision_feature_layers": [-1, -2],
    },
    "video_llava": {
        "text_config": text("llama"),
        "vision_config": dict(model_type="clip_vision_model", **_TOWER),
        "image_token_index": 260,
        "video_token_index": 261,
    },
    "mistral3": {
        "text_config": text("mistral"),
        "vision_config": dict(model_type="pixtral", **_TOWER),
        "image_token_index": 260,
    },
    "paligemma": {
        "text_config": text("gemma"),
        "vision_config": dict(model_type="siglip_vision_model", **_TOWER),
        "image_token_index": 260,
        "projection_dim": 64,
    },
    "aya_vision": {
        "text_config": text("cohere2", sliding_window=6),
        "vision_config": dict(model_type="siglip_vision_model", **_TOWER),
        "image_token_index": 260,
    },
    "internvl": {
        "text_config": text("qwen2"),
        "vision_config": {
            "model_type": "internvl_vision",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [16, 16],
            "patch_size": [8, 8],
        },
        "image_token_id": 260,
    },
    "idefics3": {
        "text_config": text("llama"),
        "vision_config": dict(**_TOWER),
        "image_token_id": 260,
        "scale_factor": 2,
    },
    "smolvlm": {
        "text_config": text("llama"),
        "vision_config": dict(**_TOWER),
        "image_token_id": 260,
        "scale_factor": 2,
    },
    "qwen2_vl": dict(
        text_config=text("qwen2_vl_text", **_THREE_AXES),
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        **_TOKENS,
    ),
    "qwen2_5_vl": dict(text_config=text("qwen2_5_vl_text", **_THREE_AXES), vision_config=_QWEN_TOWER, **_TOKENS),
    "qwen3_vl": dict(
        text_config=text(
            "qwen3_vl_text",
            rope_parameters=_INTERLEAVED,
        ),
        vision_config=_DEEP_TOWER,
        **_TOKENS,
    ),
    "qwen3_vl_moe": dict(
        text_config=text(
            "qwen3_vl_moe_text",
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            rope_parameters=_INTERLEAVED,
        ),
        vision_config=_DEEP_TOWER,
        **_TOKENS,
    ),
    "qwen3_5": dict(
        text_config=text(
            "qwen3_5_text",
            num_hidden_layers=4,
            linear_num_value_heads=4,
            linear_num_key_heads=2,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            rope_parameters={
                "rope_type": "default",
                "mrope_section": [1, 1, 0],
                "rope_theta": 10000.0,
                "mrope_interleaved": True,
                "partial_rotary_factor": 0.25,
            },
        ),
        vision_config={**_DEEP_TOWER, "deepstack_visual_indexes": []},
        **_TOKENS,
    ),
    "glm4v": {
        "text_config": text("glm4v_text", **_THREE_AXES),
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 64,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "image_size": 16,
        },
        "image_token_id": 260,
        "video_token_id": 261,
        "image_start_token_id": 262,
        "image_end_token_id": 263,
        "video_start_token_id": 258,
        "video_end_token_id": 259,
    },
    "llama4": {
        "text_config": text(
            "llama4_text",
            intermediate_size_mlp=96,
            num_local_experts=2,
            num_experts_per_tok=1,
            attention_chunk_size=8192,
            num_hidden_layers=4,
            no_rope_layers=[1, 1, 1, 0],
        ),
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
        "image_token_index": 260,
    },
    "gemma4": {
        "text_config": text(
            "gemma4_text",
            layer_types=["sliding_attention", "full_attention"],
            sliding_window=6,
            global_head_dim=16,
            num_global_key_value_heads=2,
            hidden_size_per_layer_input=32,
            vocab_size_per_layer_input=264,
        ),
        "vision_config": None,
        "audio_config": None,
        "image_token_id": 260,
    },
    "lfm2_vl": {
        "text_config": text("lfm2", layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
        "vision_config": {
            "model_type": "siglip2_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 8,
            "num_patches": 4,
        },
        "image_token_id": 260,
        "downsample_factor": 2,
    },
    "mllama": {
        "text_config": text(
            "mllama_text_model",
            cross_attention_layers=[1],
            num_hidden_layers=3,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [[1, 1]],
            "max_num_tiles": 1,
        },
        "image_token_index": 263,
    },
    "cohere2_vision": {
        "text_config": text("cohere2", sliding_window=6),
        "vision_config": dict(model_type="siglip_vision_model", **_TOWER),
        "image_token_id": 260,
    },
    "ovis2": {
        "text_config": text("qwen2"),
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
            "vocab_size": 20,
            "num_visual_indicator_tokens": 5,
        },
        "image_token_id": 260,
        "visual_indicator_token_ids": [250, 251, 252, 253, 254],
    },
    "got_ocr2": {
        "text_config": text("qwen2"),
        "vision_config": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "output_channels": 32,
            "window_size": 2,
            "global_attn_indexes": [1],
            "mlp_dim": 48,
        },
        "image_token_index": 260,
    },
    "qwen2_audio": {
        "text_config": text("qwen2"),
        "audio_config": {
            "model_type": "qwen2_audio_encoder",
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "num_mel_bins": 16,
            "max_source_positions": 20,
        },
        "audio_token_index": 260,
    },
    "voxtral": {
        "text_config": text("llama"),
        "audio_config": {
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_mel_bins": 16,
            "max_source_positions": 20,
        },
        "audio_token_id": 260,
    },
}


def make(folder: Path, family: str, dtype: torch.dtype = torch.float32, scale: float = 1.0, **more: Any) -> Path:
    """Save a random model with a tokenizer; norms and biases are random too. scale: what weights are multiplied by.
    more: changes to its config of text."""
    torch.manual_seed(0)
    settings = MODELS[family]
    settings = {**settings, "text_config": settings["text_config"] | more}
    named = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    name = named.get(family) or modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[family]
    kind = getattr(transformers, name)
    model = kind._from_config(AutoConfig.for_model(family, **settings), dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() or name.endswith("bias"):
                parameter += 0.2 * torch.randn_like(parameter)
            elif parameter.dim() > 1:
                parameter.mul_(scale)
    transformers.utils.logging.disable_progress_bar()
    (model if dtype == torch.float32 else model.to(dtype)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def image_inputs(family: str) -> dict[str, torch.Tensor]:
    """What models of `family` with an image of 16 x 16 pixels in their text are given."""
    noise = torch.Generator().manual_seed(1)
    tokens = torch.tensor([[5, 9, 262, *[IMAGE] * 4, 263, 7, 30, 31, 8]])
    if family.startswith("qwen"):
        patches = torch.randn(16, 3 * 2 * 4 * 4, generator=noise)
        kinds = (tokens == IMAGE).int()
        grid = torch.tensor([[1, 4, 4]])
        return {"input_ids": tokens, "pixel_values": patches, "image_grid_thw": grid, "mm_token_type_ids": kinds}
    return {"input_ids": tokens, "pixel_values": torch.randn(1, 3, 16, 16, generator=noise)}
