"""Builds a model whose blocks differ in shape, as `per_layer_config` in config.json says.

This file is whole by itself (torch and transformers are all it needs) and is copied into folders that whet pruned with
`--shapes free`. There, `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` uses it. Without
`trust_remote_code` the stock class refuses the folder: config.json's own `intermediate_size` is 1, which no block has.

`per_layer_config` is in the format of transformers: by a block's number the entries of config.json that are its own
(`intermediate_size`, `num_attention_heads`, `num_key_value_heads`), and under `skip` which of `attention` and `mlp` it
does not have. Blocks are in `model.layers`, each with `self_attn` behind `input_layernorm` and `mlp` behind
`post_attention_layernorm`. Nothing else differs from the stock model.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers
from torch import Tensor, nn

PREFIX = "PerLayer"  # before the name of a class of transformers: that class, with blocks of several shapes


class NoAttention(nn.Module):
    """Stands where a block has no attention: adds nothing, and keeps no keys and values."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return torch.zeros_like(hidden_states), None


class NoFeedForward(nn.Module):
    """Stands where a block has no feed-forward: adds nothing."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return torch.zeros_like(hidden_states)


def reshape(model: Any, layers: dict) -> None:
    """Give every block that `layers` names the shape it says, in `model`, which was built with those of its config."""
    for number, own in layers.items():
        blocks = model.model.layers
        before = blocks[int(number)]
        config = copy.copy(model.config)
        config.__dict__.pop("_heterogeneity_spec", None)  # one block's config has nothing that differs
        for entry, value in own.items():
            setattr(config, entry, value)
        block = type(before)(config, int(number)).to(next(before.parameters()).dtype)
        if "attention" in own.get("skip", ()):
            block.self_attn, block.input_layernorm = NoAttention(), nn.Identity()
        if "mlp" in own.get("skip", ()):
            block.mlp, block.post_attention_layernorm = NoFeedForward(), nn.Identity()
        blocks[int(number)] = block


class Entries(dict):
    """Entries that are read as attributes too, which is how vLLM reads those of `block_configs`."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        value = self[name]
        return Entries(value) if isinstance(value, dict) else value


class PerLayerConfig:
    """What a config of transformers is made of beside its own class."""

    @property
    def block_configs(self) -> list[Entries]:
        """The shapes of all blocks once more, as vLLM's DeciLM has them; stored where vLLM can hold the model."""
        return [Entries(one) for one in self.__dict__.get("block_configs", ())]

    @block_configs.setter
    def block_configs(self, blocks: list[dict]) -> None:
        self.__dict__["block_configs"] = blocks


class PerLayerModel:
    """What a model of transformers is made of beside its own class."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        config.allow_global_per_layer_attribute_access = True
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        reshape(self, config.to_dict()["per_layer_config"])


def __getattr__(name: str) -> Any:
    """The class of this file that `name` is: `PerLayer` and the name of a model or config of transformers."""
    stock = getattr(transformers, name.removeprefix(PREFIX), None) if name.startswith(PREFIX) else None
    if stock is None:
        raise AttributeError(name)
    if issubclass(stock, transformers.PreTrainedModel):
        own = {"config_class": __getattr__(PREFIX + stock.config_class.__name__)}
        made = type(name, (PerLayerModel, stock), {"__module__": __name__, **own})
    else:
        made = type(name, (PerLayerConfig, stock), {"__module__": __name__})
    globals()[name] = made
    return made
