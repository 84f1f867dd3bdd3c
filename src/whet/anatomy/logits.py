"""What a larger model makes of the logits of its head.

A family's own class may scale or bound them. Most larger models call the text model without that class and bring a
plain head, so they leave that out, whatever the config says: Cohere 2 in Aya Vision, Granite in LLaVA-NeXT. No entry of
the config tells. So the model's own code is run around known logits, with its text model stubbed out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from whet.anatomy.family import Family

_WIDEST = 40.0  # of the logits that it is tried on, beyond the usual bound of 30
_CLOSE = 1e-4


class _States(BaseModelOutputWithPast):  # type: ignore[misc]
    """Hidden states of a text, and nothing else that a model may look for (states of an image)."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def left_out(row: Family, model: Any) -> dict[str, float | None] | None:
    """Entries of the text model's config that the family `row` has in its logits and the larger `model`, on the meta
    device, has not, with values that change nothing. None where it does something else than either."""
    config, neutral = model.config.get_text_config(), dict[str, float | None]()
    size = model.get_output_embeddings().weight.shape[0]
    plain = torch.linspace(-_WIDEST, _WIDEST, size)[None, None]
    bent = plain
    if row.logit_scale is not None:
        entry, power = row.logit_scale
        neutral[entry] = 1.0
        bent = bent * float(getattr(config, entry)) ** power
    if row.softcap and (bound := getattr(config, row.softcap, None)):
        neutral[row.softcap] = None
        bent = torch.tanh(bent / bound) * bound
    if not neutral:
        return {}
    given = _after_head(model, plain)
    if torch.allclose(given, bent, rtol=_CLOSE, atol=_CLOSE):
        return {}
    return neutral if torch.allclose(given, plain, rtol=_CLOSE, atol=_CLOSE) else None


def _after_head(model: Any, logits: Tensor) -> Tensor:
    """What `model` gives where its head gives `logits [1, 1, vocabulary]`."""
    head = model.get_output_embeddings()
    name = next(name for name, module in model.named_modules() if module is head)
    owner = model.get_submodule(name.rpartition(".")[0])  # whose forward calls it
    with torch.device("meta"):
        hidden = torch.zeros(1, 1, head.weight.shape[1])
        tokens = torch.zeros(1, 1, dtype=torch.int64)
    states = _States(last_hidden_state=hidden)
    with torch.no_grad(), _instead(owner.base_model, lambda *_, **__: states), _instead(head, lambda _: logits):
        found: Tensor = owner(input_ids=tokens, use_cache=False).logits
    return found


@contextlib.contextmanager
def _instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`module` computes `forward` until the end of the block."""
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward
