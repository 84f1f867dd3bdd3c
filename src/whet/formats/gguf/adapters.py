"""Adapters as llama.cpp loads them beside a model: `NAME.lora_a` `[r, in]` and `NAME.lora_b` `[out, r]`.

llama.cpp divides by each tensor's own rank unless alpha is 0, and adds the product as it is then: so a scale goes into
B, and files of several scales need no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whet import __version__
from whet.checkpoint import Adapter, Checkpoint, Factors, refuse_unfinished
from whet.errors import UsageError
from whet.formats.gguf.architectures import Architecture, find_architecture, tensor_name
from whet.formats.gguf.blocks import FLOAT_TYPES
from whet.formats.gguf.layout import Layout
from whet.formats.gguf.placing import Placed, order_of
from whet.formats.gguf.source import Source, TextModel, text_model


def plan_adapter(adapter: Adapter, base: str | Path) -> Layout:
    """What a .gguf of an adapter will hold, for the model in the folder `base` in whatever types its own .gguf has.

    Raises UsageError for a DoRA, and for modules or families that llama.cpp does not know.
    """
    checkpoint = Checkpoint(base)
    refuse_unfinished(checkpoint.path)
    if adapter.sized:
        raise UsageError(
            "{adapter} is a DoRA: it brings whole rows of weights to other lengths, which no two factors do and "
            "llama.cpp does not compute. Merge it first (whet merge {base} {adapter} OUT) and export that.",
            adapter=adapter.folder,
            base=base,
        )
    text = text_model(checkpoint)
    row = find_architecture(text.config, str(checkpoint.path))
    name = f"{checkpoint.path.resolve().name}, {adapter.folder.resolve().name}"
    return place_adapter(adapter.factors, row, text, Source(checkpoint, {}), name)


def place_adapter(
    factors: Mapping[str, Factors], row: Architecture, text: TextModel, source: Source, name: str
) -> Layout:
    """The file of an adapter, its rows in the order of the tensors that they are added to. name: the model's."""
    find = tensor_name(row, text.config.num_hidden_layers)
    tensors: list[Placed] = []
    for module, one in factors.items():
        own = text.own(f"{module}.weight")
        target = None if own is None else find(own)
        if target is None:
            raise UsageError(
                "{folder}: its adapter names {module}, which has no place in {name} of llama.cpp.",
                folder=source.checkpoint.path,
                module=module,
                name=row.name,
            )
        b = one.b if one.scale == 1 else one.scale * one.b.float()
        order = order_of(row, text.config, target, len(b))
        for part, value in (("lora_a", one.a.to(b.dtype)), ("lora_b", b if order is None else b[order])):
            tensors.append(Placed(f"{target}.{part}", FLOAT_TYPES[b.dtype], tuple(value.shape), value=value))
    entries: dict[str, Any] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 0.0,
        "general.name": f"{name}, its adapter",
        "whet.version": __version__,
    }
    return Layout(row.name, entries, tensors, source)
