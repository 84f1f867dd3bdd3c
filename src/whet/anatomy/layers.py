"""Models whose blocks differ in shape: `per_layer_config` of config.json, in transformers' format, and which families
whet writes it for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import transformers

from whet.errors import UsageError
from whet.messages import Message

if TYPE_CHECKING:
    from whet.anatomy.model import Anatomy

ENTRY = "per_layer_config"
MODULE = "modeling_per_layer"  # the file in such a folder that builds the model
_AUTO = "AutoModelForCausalLM"
ALLOW = "allow_global_per_layer_attribute_access"  # without it transformers refuses to build the config at all
BLOCK_CONFIGS = "block_configs"  # the same once more, for vLLM
BESIDE = (ENTRY, ALLOW, BLOCK_CONFIGS)
SKIP = "skip"
# By unit of `surgery`, what a block without any is said to skip, and the modules that go with it.
SKIPPED = {"heads": "attention", "channels": "mlp"}
SUB_BLOCKS = {"heads": ("self_attn", "input_layernorm"), "channels": ("mlp", "post_attention_layernorm")}
_READ = {"heads": "attention input", "channels": "ffn input"}
_STACK = "model.layers"


def per_layer(config: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """By block the entries that are its own; empty where all blocks are alike, or where the stock class itself reads
    them. Raises UsageError for what is no such table."""
    named = config.get("auto_map")
    if not isinstance(named, Mapping) or not str(named.get(_AUTO, "")).startswith(f"{MODULE}."):
        return {}
    try:
        return {int(number): dict(own) for number, own in config[ENTRY].items()}
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            "config.json names {file}, and its {entry} is no table of blocks. Download the folder again.",
            file=f"{MODULE}.py",
            entry=ENTRY,
        ) from error


def entries(config: Mapping[str, Any], architecture: str, layers: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What config.json says where blocks have entries of their own. config: all other entries. architecture: the
    model's class in transformers."""
    kind = getattr(transformers, architecture)
    return {
        **config,
        ALLOW: True,
        ENTRY: {str(number): dict(own) for number, own in sorted(layers.items())},
        "auto_map": {
            "AutoConfig": f"{MODULE}.PerLayer{kind.config_class.__name__}",
            _AUTO: f"{MODULE}.PerLayer{architecture}",
        },
    }


def config_of(config: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The config that block `index` was built by."""
    return {**config, **per_layer(config).get(index, {})}


def gone(config: Mapping[str, Any], index: int) -> tuple[str, ...]:
    """Modules that block `index` does not have, of those that others have."""
    skipped = per_layer(config).get(index, {}).get(SKIP, ())
    return tuple(module for unit, name in SKIPPED.items() if name in skipped for module in SUB_BLOCKS[unit])


def why_alike(parts: Anatomy) -> Message | None:
    """Why the blocks of a model cannot differ in shape; None where they can: where each is an attention and a
    feed-forward, both added to the residual stream behind a norm of their own."""
    family = parts.family
    if not family.known or family.found or family.entries or parts.task != "causal":
        return Message("whet has no row for the family {family}", family=parts.model_type)
    into = {
        unit: any(fold.norm == SUB_BLOCKS[unit][1:] and reads in fold.reads for fold in family.folds)
        for unit, reads in _READ.items()
    }
    modules = tuple(f"{module}." for names in SUB_BLOCKS.values() for module in names)
    begins = [name for index, names in enumerate(parts.block_tensors) for name in _own(parts, index, names)]
    if (
        family.stacks != (_STACK,)
        or not all(into.values())
        or any(len(fold.norm) and set(fold.reads) >= set(_READ.values()) for fold in family.folds)
        or not all(name.startswith(modules) for name in begins)
        or any(linear.held.expert is not None for linear in parts.linears())
    ):
        return Message(
            "its blocks are not one attention and one feed-forward, each behind a norm of its own and added to the "
            "residual stream as they are"
        )
    return None


def _own(parts: Anatomy, index: int, stored: list[str]) -> list[str]:
    return [parts.name(name).removeprefix(parts.block_prefix(index)) for name in stored]
