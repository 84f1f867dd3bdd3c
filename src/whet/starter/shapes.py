"""The shapes that are timed where no model is named: a Llama of 134 million parameters, whose weights are all 0.

How fast it is does not depend on that. Its file has a header and a hole: it takes no room on most disks.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

_HIDDEN, _FFN, _BLOCKS, _VOCABULARY = 768, 2048, 12, 32000
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": _HIDDEN,
    "intermediate_size": _FFN,
    "num_hidden_layers": _BLOCKS,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "vocab_size": _VOCABULARY,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


def write_standard(folder: Path, tokenizer: Path) -> None:
    """Write the folder, with the tokenizer of another."""
    folder.mkdir()
    for file in tokenizer.glob("tokenizer*"):
        shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    shapes = {"model.embed_tokens": (_VOCABULARY, _HIDDEN), "lm_head": (_VOCABULARY, _HIDDEN), "model.norm": (_HIDDEN,)}
    for block in range(_BLOCKS):
        at = f"model.layers.{block}"
        shapes |= {f"{at}.self_attn.{name}_proj": (_HIDDEN, _HIDDEN) for name in "qkvo"}
        shapes |= {f"{at}.mlp.{name}_proj": (_FFN, _HIDDEN) for name in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj": (_HIDDEN, _FFN)}
        shapes |= {f"{at}.{name}_layernorm": (_HIDDEN,) for name in ("input", "post_attention")}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[f"{name}.weight"] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    said = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(said).to_bytes(8, "little") + said)
        stream.truncate(8 + len(said) + end)
