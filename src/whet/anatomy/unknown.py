"""Families no table describes: what can be told from the model that transformers builds, and no more.

The list of modules with the most weights is taken for the blocks, and of these the `nn.Linear`s alone. Nothing is known
of inputs, heads or ties, so such a model is rounded without running it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from whet.anatomy.family import Family, LinearName, architecture_of
from whet.anatomy.inner import naming
from whet.anatomy.layers import BESIDE, per_layer
from whet.anatomy.stored import conversion
from whet.errors import UsageError
from whet.messages import Message
from whet.strict import with_numbers

_NARROW = 16  # columns
# Entries with a number of layers, not of tokens or channels in one, or the number of the first of some kind.
_COUNTS = re.compile(r"^(?!max_).*layers$|^n_layer$|^num_layer$")
_TIED = "tie_word_embeddings"


def built(config: Mapping[str, Any], tensors: int = 1 << 20) -> Any | None:
    """The stock architecture that `config` names, on the meta device, or None where transformers has none by that name.

    tensors: how many are stored; a config that asks for more layers than that of any kind is not built.
    """
    architecture = architecture_of(config)
    if any(count > tensors for _, count in layer_counts(config)):
        return None
    kind = getattr(transformers, architecture, None) or _registered(config)
    if not architecture or not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        return None
    try:
        settings = stock_config(config)
        if getattr(kind.config_class, "model_type", None) != config.get("model_type") and not _built(kind, settings):
            return None
        with torch.device("meta"):
            return kind(settings)
    except Exception:  # whatever a config of an architecture nobody here knows makes of it
        return None


def layer_counts(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Entries of `config`, and of the configs in it, that say how many there are of some kind of layer."""
    for key, value in config.items():
        if _COUNTS.search(key) and isinstance(value, int):
            yield key, value
        elif key.endswith("_config") and isinstance(value, Mapping):
            yield from layer_counts(value)


def described(model: Any, stored: Collection[str] = (), entries: Mapping[str, Any] | None = None) -> Family | None:
    """A description of `model`, which is on the meta device, or None where its blocks are not to be told.

    stored: names of the tensors in its files, where they are known; linears that files have in another form are left
    out. entries: of the text model inside it, if it is a larger one: the blocks are that one's.
    """
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        return None
    embedding = next(name for name, module in model.named_modules() if module is table)
    place = "" if entries is None else embedding.rpartition(".")[0]
    blocks = _blocks(model, place)
    if blocks is None:
        return None
    name, modules = blocks
    as_stored = conversion(model, stored)
    there = {as_stored.called.get(tensor, tensor) for tensor in stored}
    every = [linear_paths(block) for block in modules]
    deciding = {path for block in modules for path in _deciding(block)}
    every = [[path for path in paths if path not in deciding] for paths in every]
    kept = [[path for path in paths if f"{name}.{index}.{path}.weight" in there] for index, paths in enumerate(every)]
    kinds = kinds_of(kept if any(kept) else every)
    if not kinds:
        return None
    head = model.get_output_embeddings()
    more: dict[str, Any] = {}
    if entries is not None:
        more = {"entries": entries, "leads": ("model", place), "naming": naming(model)}
    return Family(
        (type(model).__name__,),
        (),
        title=str(model.config.model_type),
        blocks=name,
        embedding=embedding,
        norm="",
        head=next((name for name, module in model.named_modules() if module is head), ""),
        alternatives=kinds,
        ties=bool(getattr(model.config, _TIED, False) if entries is None else entries[_TIED]),
        packed=why_not_packed(model, modules),
        called=as_stored.called,
        known=False,
        **more,
    )


def own_code(config: Mapping[str, Any]) -> bool:
    """Whether Python files of the model's own build it, which somebody let run (`whet.checkpoint.code`)."""
    return bool(config.get("auto_map")) and str(config.get("model_type")) in CONFIG_MAPPING._extra_content


def _registered(config: Mapping[str, Any]) -> Any:
    """The class of such a model."""
    if not own_code(config):
        return None
    kind = CONFIG_MAPPING[str(config.get("model_type"))]
    return transformers.AutoModelForCausalLM._model_mapping.get(kind, None)


def _built(kind: type, settings: Any) -> bool:
    """Whether transformers builds the architecture `kind` from another family's `settings`."""
    built = transformers.AutoModelForCausalLM._model_mapping.get(type(settings), ())
    return kind in (built if isinstance(built, tuple) else (built,))


def _blocks(model: Any, place: str) -> tuple[str, nn.ModuleList] | None:
    """The list of modules with the most weights, of those in the module `place`, that is in no other list, as experts
    are, and its name."""
    every = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    lists = [(name, module) for name, module in every if name.startswith(place)]
    outer = [(name, module) for name, module in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    return max(outer, key=lambda item: sum(p.numel() for p in item[1].parameters()), default=None)


def linear_paths(block: nn.Module) -> list[str]:
    """Paths of the linears of a block that are worth rounding: of few columns scales take as much as codes."""
    linears = ((path, module) for path, module in block.named_modules() if isinstance(module, nn.Linear))
    return [path for path, module in linears if path and module.in_features >= _NARROW]


def _deciding(block: nn.Module) -> list[str]:
    """Paths of linears that have as many outputs as the block has experts, or a single one: what decides what becomes
    of a token is never rounded."""
    lists = {len(module) for module in block.modules() if isinstance(module, nn.ModuleList)}
    experts = lists | {len(parameter) for parameter in stacks(block).values()} | {1}
    linears = ((path, module) for path, module in block.named_modules() if isinstance(module, nn.Linear))
    return [path for path, module in linears if module.out_features in experts]


def stacks(block: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a block that hold a matrix for every expert, `[experts, …, …]`, by name."""
    found: dict[str, nn.Parameter] = {}
    for path, module in block.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            continue
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 3 and min(parameter.shape) > 1:
                found[f"{path}.{leaf}" if path else leaf] = parameter
    return found


def stock_config(config: Mapping[str, Any]) -> Any:
    """The transformers config of the stock architecture that `config` names, without what says how weights are stored,
    which code is to run and where blocks differ. Raises whatever transformers does for entries that it cannot take."""
    left = ("quantization_config", "auto_map", "whet", *(BESIDE if per_layer(config) else ()))
    settings = {k: v for k, v in config.items() if k not in left}
    return transformers.AutoConfig.for_model(**with_numbers(settings))


def kinds_of(
    blocks: Sequence[Sequence[str]], named: Mapping[str, LinearName] | None = None
) -> tuple[tuple[LinearName, ...], ...]:
    """Kinds of blocks by the paths of their linears. A block is of the first kind whose first linear it has, so each
    begins with one that no later kind has; where there is none, blocks have what they have in common alone.

    named: what is known of some paths."""
    kinds = sorted({tuple(paths) for paths in blocks if paths}, key=lambda kind: (-len(kind), kind))
    found = []
    for place, kind in enumerate(kinds):
        later = {path for other in kinds[place + 1 :] for path in other}
        leads = [path for path in kind if path not in later]
        if not leads:
            common = [path for path in kinds[0] if all(path in other for other in kinds)]
            found = [common] if common else []
            break
        found.append([leads[0], *(path for path in kind if path != leads[0])])
    names = named or {}
    return tuple(tuple(names.get(path) or plain_name(path) for path in kind) for kind in found)


def plain_name(path: str) -> LinearName:
    """A linear of which only its `path` is known."""
    return LinearName(path, re.sub(r"\.\d+\.", ".", path), f"input of {path}")


def why_not_packed(model: Any, blocks: nn.ModuleList, listed: Collection[str] = ()) -> Message | None:
    """Why stock transformers loads no packed linears of a model on the meta device, if so; takes their weights away.

    listed: names of stacks that transformers makes of experts in the files, which may be packed like all else.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if any(names[id(stack)] not in listed for block in blocks for stack in stacks(block).values()):
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
        "{source} is built by Python code of its own ({code}, by auto_map in config.json), and transformers does not "
        "know the family {family!r} without it. Update transformers, or look for a release of the model that it loads "
        "as it is. If you trust who wrote the code, which may do anything on this machine, --trust-remote-code runs "
        "it.",
        source=source,
        code=str(code).rpartition("--")[2].split(".")[0] + ".py",
        family=str(config.get("model_type", "")),
    )


def quantized_by(config: Mapping[str, Any]) -> str:
    """What quantized a model, by the `quantization_config` of its config; whet where that has none."""
    settings = config.get("quantization_config") or {}
    return str(settings.get("quant_method", "whet")) if isinstance(settings, Mapping) else "whet"
