"""Text models inside larger ones: of a model that sees or hears, the part that reads and writes text. And models
without the head of their family, whose modules have other names than with it.

The larger model's config holds a config of text, and its tensors are the text model's under names of their own beside
those of a tower and a projector. What the table says of the text model's family holds there too. Where its modules are
is told by the embedding, what stored tensors are called by transformers, which renames many of them when it loads.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from whet.anatomy.family import Family, moved
from whet.anatomy.logits import left_out
from whet.errors import UsageError
from whet.messages import Message, with_and

# Families of text models that are in larger ones alone, by the row that has their modules. Positions of three axes are
# those of one where there is only text.
LIKE = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
_ENTERED = Message("images enter the residual stream too, by a projector that would have to be turned with it")
_LEFT = Message("the states after its last block are what it gives, and would be turned with it")


def text_entries(model: Any) -> dict[str, Any] | None:
    """The entries of the config of text inside the config of `model`, as transformers completes them; None where the
    model is a text model itself, or has an encoder and a decoder. Raises UsageError where text alone is not read."""
    text = model.config.get_text_config()
    if text is model.config or model.config.is_encoder_decoder:
        return None
    given = [one for name, one in inspect.signature(model.forward).parameters.items() if name != "input_ids"]
    if needed := [one.name for one in given if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]:
        raise UsageError(
            "{architecture} reads no text by itself: every text goes with {needed}. whet calibrates and compares on "
            "text, so it cannot compress such a model.",
            architecture=type(model).__name__,
            needed=with_and(needed),
        )
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is table.weight
    return {**text.to_dict(), "tie_word_embeddings": tied}


def within(row: Family, model: Any, entries: Mapping[str, Any] | None = None) -> Family | None:
    """The family `row` of the text model in `model`, which is on the meta device, with the names it has there; None
    where its embedding is another, or its logits are neither the row's nor plain.

    entries: as `text_entries` gives them; of a model without the head of its family, which is its text model, none.
    """
    leads = _leads(row.embedding, name_of(model, model.get_input_embeddings()))
    if leads is None:
        return None
    plain = left_out(row, model) if entries is not None else {}
    if plain is None:
        return None

    def there(name: str) -> str:
        return moved(name, *leads)

    return dataclasses.replace(
        row,
        blocks=tuple(map(there, row.stacks)),
        embedding=there(row.embedding),
        norm=there(row.norm) if row.norm else "",
        head=name_of(model, model.get_output_embeddings()),
        beside=tuple(map(there, row.beside)),
        shared=tuple(map(there, row.shared)),
        ties=False if entries is None else bool(entries["tie_word_embeddings"]),
        renames=(),
        naming=naming(model),
        leads=leads,
        entries=entries or {},
        softcap="" if entries is None or row.softcap in plain else row.softcap,
        logit_scale=None if entries is None or plain else row.logit_scale,
        left_out=plain,
        writes=(),
        still=row.still or (_LEFT if entries is None else _ENTERED),
    )


def name_of(model: nn.Module, wanted: nn.Module | None) -> str:
    """What `model` calls the module `wanted`; an empty word for none of its modules."""
    return next((name for name, module in model.named_modules() if module is wanted), "")


def naming(model: Any) -> Callable[[str], str]:
    """What `model`, on the meta device, calls a stored tensor, as transformers finds it when it loads one."""
    renamings = [one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)]
    known, prefix = model.state_dict(), model.base_model_prefix

    def name(stored: str) -> str:
        found, _ = rename_source_key(stored, renamings, [], prefix, known)
        if found not in known:
            plain, _ = rename_source_key(stored, [], [], prefix, known)
            found = plain if plain in known else found
        return found

    return name


def _leads(own: str, whole: str) -> tuple[str, str] | None:
    """What two names of one module begin with, before what they have in common; None where that is nothing."""
    ours, theirs = own.split("."), whole.split(".")
    same = 0
    while same < min(len(ours), len(theirs)) and ours[-1 - same] == theirs[-1 - same]:
        same += 1
    if not same:
        return None
    return ".".join(ours[: len(ours) - same]), ".".join(theirs[: len(theirs) - same])
