"""Families no table describes: what can be told from the model that transformers builds, and no more.

The longest list of modules is taken for the blocks, and of these the `nn.Linear`s alone. Nothing is known of inputs,
heads or ties, so such a model is rounded without running it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import nn

from whet.anatomy.family import Family, LinearName, architecture_of
from whet.anatomy.inner import naming
from whet.errors import UsageError
from whet.messages import Message
from whet.strict import with_numbers

# What decides on experts is never rounded.
_ROUTERS = ("gate", "router", "shared_expert_gate")
# Entries with a number of layers, not of tokens or channels in one, or the number of the first of some kind.
_COUNTS = re.compile(r"^(?!max_).*layers$|^n_layer$")
_TIED = "tie_word_embeddings"


def built(config: Mapping[str, Any], tensors: int = 1 << 20) -> Any | None:
    """The stock architecture that `config` names, on the meta device, or None where transformers has none by that name.

    tensors: how many are stored; a config that asks for more modules than that of any kind is not built.
    """
    architecture = architecture_of(config)
    if any(count > tensors for _, count in layer_counts(config)):
        return None
    kind = getattr(transformers, architecture, None)
    if not architecture or not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        return None
    if getattr(kind.config_class, "model_type", None) != config.get("model_type"):
        return None
    try:
        with torch.device("meta"):
            return kind(stock_config(config))
    except Exception:  # whatever a config of an architecture nobody here knows makes of it
        return None


def layer_counts(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Entries of `config`, and of the configs in it, that say how many there are of some kind of layer."""
    for key, value in config.items():
        if _COUNTS.search(key) and isinstance(value, int):
            yield key, value
        elif key.endswith("_config") and isinstance(value, Mapping):
            yield from layer_counts(value)


def described(model: Any, entries: Mapping[str, Any] | None = None) -> Family | None:
    """A description of `model`, which is on the meta device, or None where its blocks are not to be told.

    entries: of the text model inside it, if it is a larger one: the blocks are that one's.
    """
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        return None
    embedding = next(name for name, module in model.named_modules() if module is table)
    place = "" if entries is None else embedding.rpartition(".")[0]
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.startswith(place)
    ]
    blocks = max(lists, key=lambda item: len(item[1]), default=None)
    if blocks is None:
        return None
    kinds = kinds_of([[n for n, m in block.named_modules() if isinstance(m, nn.Linear)] for block in blocks[1]])
    if not kinds:
        return None
    head = model.get_output_embeddings()
    more: dict[str, Any] = {}
    if entries is not None:
        more = {"entries": entries, "leads": (place, place), "naming": naming(model)}
    return Family(
        (type(model).__name__,),
        (),
        title=str(model.config.model_type),
        blocks=blocks[0],
        embedding=embedding,
        norm="",
        head=next((name for name, module in model.named_modules() if module is head), ""),
        alternatives=kinds,
        ties=bool(getattr(model.config, "tie_word_embeddings", False) if entries is None else entries[_TIED]),
        packed=_why_not_packed(model, blocks[1]),
        known=False,
        **more,
    )


def stock_config(config: Mapping[str, Any]) -> Any:
    """The transformers config of the stock architecture that `config` names, without what says how weights are stored
    and which code is to run. Raises whatever transformers does for entries that it cannot take."""
    settings = {k: v for k, v in config.items() if k not in ("quantization_config", "auto_map", "whet")}
    return transformers.AutoConfig.for_model(**with_numbers(settings))


def kinds_of(blocks: Sequence[Sequence[str]]) -> tuple[tuple[LinearName, ...], ...]:
    """Kinds of blocks by the paths of their linears. A block is of the first kind whose first linear it has, so each
    begins with one that no later kind has; where there is none, blocks have what they have in common alone."""
    lists = [[path for path in block if path.rpartition(".")[2] not in _ROUTERS] for block in blocks]
    kinds = sorted({tuple(paths) for paths in lists if paths}, key=lambda kind: (-len(kind), kind))
    found = []
    for place, kind in enumerate(kinds):
        later = {path for other in kinds[place + 1 :] for path in other}
        leads = [path for path in kind if path not in later]
        if not leads:
            common = [path for path in kinds[0] if all(path in other for other in kinds)]
            found = [common] if common else []
            break
        found.append([leads[0], *(path for path in kind if path != leads[0])])
    return tuple(
        tuple(LinearName(path, re.sub(r"\.\d+\.", ".", path), f"input of {path}") for path in kind) for kind in found
    )


def _why_not_packed(model: Any, blocks: nn.ModuleList) -> Message | None:
    """Why stock transformers loads no packed linears of a model on the meta device, if so; takes their weights away."""
    if any(parameter.dim() > 2 for parameter in blocks.parameters()):
        return Message("transformers stacks some of its weights, and cannot while others are packed")
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            del module.weight
    try:
        for module in model.modules():
            model._init_weights(module)
    except AttributeError:
        return Message("its own code reads weights while it is loaded, and packed ones are not there yet")
    return None


def needs_code(config: Mapping[str, Any], source: str) -> UsageError | None:
    """What to say of a model whose config names Python files that build it, if this one does."""
    named = config.get("auto_map")
    if not isinstance(named, Mapping) or not named:
        return None
    code = next((name for key, name in named.items() if key.startswith("AutoModel")), next(iter(named.values())))
    return UsageError(
        "{source} is built by Python code of its own ({code}, by auto_map in config.json), which whet never runs, and "
        "transformers does not know the family {family!r} without it. Look for a release of the model that "
        "transformers loads without trust_remote_code, or update transformers.",
        source=source,
        code=str(code).rpartition("--")[2].split(".")[0] + ".py",
        family=str(config.get("model_type", "")),
    )


def quantized_by(config: Mapping[str, Any]) -> str:
    """What quantized a model, by the `quantization_config` of its config; whet where that has none."""
    settings = config.get("quantization_config") or {}
    return str(settings.get("quant_method", "whet")) if isinstance(settings, Mapping) else "whet"
