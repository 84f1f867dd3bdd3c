"""What one opened model is served with beside its weights, as plain values: so two processes, each with a model, can be
compared by a third that has none. `aspects.folder` compares two models that are open in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from whet.checkpoint.gguf import is_gguf
from whet.checkpoint.model_files import is_finished
from whet.errors import WhetError
from whet.measure.aspects.folder import PROBES, TURNS, settings_of
from whet.messages import to_json
from whet.text.chat import ChatTemplate, template_of


def told_of(model: str | Path, engine: Any) -> dict[str, Any]:
    """settings: by name, of a folder (`whole`) all there are; ends: tokens at which text ends, of a .gguf (`by_name`)
    all that are called so; texts: token ids of the same few texts; chat: what the template makes of the same turns,
    None without one; zeros: matrices of nothing but zeros."""
    return {
        "whole": not is_finished(model),
        "by_name": is_gguf(model),
        "settings": to_json(settings_of(model, None, None)),
        "ends": sorted(engine.ends),
        "texts": [list(engine.tokenizer(text, verbose=False)["input_ids"]) for text in PROBES],
        "chat": _rendered(engine.tokenizer, str(model)),
        "zeros": _zeros(getattr(engine, "model", None)),
    }


def _rendered(tokenizer: Any, where: str) -> list[str | None] | None:
    if template_of(tokenizer) is None:
        return None
    made: list[str | None] = []
    with ChatTemplate(tokenizer) as template:
        for turns in TURNS:
            try:
                made.append(template.render(turns, where, reply_next=True))
            except WhetError:  # refused, as by the other side or not
                made.append(None)
    return made


def _zeros(model: Any) -> list[str]:
    if not isinstance(model, nn.Module):
        return []
    return [name for name, weight in model.named_parameters() if weight.ndim > 1 and not weight.any()]
