"""A model in two: what makes hidden states, and the output layer, which can then be applied to some positions only."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel


def halves_of(model: PreTrainedModel) -> tuple[Any, Any]:
    """The model's body and output layer, if applying one after the other is all that the model does; else (None, None).

    Not so for models that scale or cap their logits (Gemma 2, Granite, Cohere): found out by asking, not by a name.
    """
    get_body = getattr(model, "get_decoder", None)
    body = get_body() if get_body else None
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if body is None or head is None or body is model:
        return None, None
    probe = torch.arange(4, device=model.device)[None]
    with torch.inference_mode():
        whole = model(input_ids=probe, use_cache=False).logits
        hidden = getattr(body(input_ids=probe, use_cache=False), "last_hidden_state", None)
        if hidden is None:  # a text model with a head inside a larger one
            return None, None
        parts = head(hidden)
    # bit by bit, NaN included: a broken model is found later, with the window that shows it
    same = whole.shape == parts.shape and torch.equal(whole.nan_to_num(0.5), parts.nan_to_num(0.5))
    return (body, head) if same else (None, None)
